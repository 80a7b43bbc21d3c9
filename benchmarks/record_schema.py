"""Write `langadapt_utils/scores.schema.json` from the result classes.

python benchmarks/record_schema.py
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, NonNegativeFloat, PositiveInt, TypeAdapter, create_model

from langadapt_utils.evaluation.scores import SCHEMA, Finding, Scores
from langadapt_utils.intervals import Interval

PATH = Path(__file__).parents[1] / "langadapt_utils" / "scores.schema.json"
Fraction = Annotated[float, Field(ge=0, le=1)]


def scores_schema() -> dict[str, Any]:
    """Return the JSON schema of what `Scores.save` writes."""
    changes = dict.fromkeys(("before", "after", "change"), Interval)
    bits = changes | {"against_control": Interval | None}
    names, count = ("model", "language"), PositiveInt
    more = dict[str, list[dict[str, Any]]]
    content = {
        "schema_": (Literal[SCHEMA], Field(alias="schema")),
        "models": Annotated[list[str], Field(min_length=2)],
        "target": str,
        "resamples": count,
        "window_bytes": count,
        "findings": list[Finding],
        "bits_per_byte": rows("Bits", ("language", "source"), bits),
        "domains": rows("Domain", ("language", "domain"), bits),
        "accuracy": rows(
            "Accuracy",
            ("language", "kind"),
            {"chance": Fraction} | changes | {"retained": Interval | None},
        ),
        "backward_transfer": Interval | None,
        "comparisons": table(
            "Comparisons", {"count": int, "beyond_doubt": int, "by_chance": NonNegativeFloat}
        ),
        "documents": rows(
            "Document",
            (*names, "source", "domain", "id"),
            {"bits": NonNegativeFloat, "bytes": count},
        ),
        "items": rows("Item", (*names, "kind", "id"), {"correct": bool, "chance": Fraction}),
        "samples": rows(
            "Sample",
            (*names, "prompt", "text"),
            dict.fromkeys(("right_script", "repeated", "undecodable"), Fraction),
        ),
        "more": more,
    }
    model = table("Scores", content, about=Scores.__doc__)
    schema = TypeAdapter(model).json_schema(by_alias=True)
    parts = schema["$defs"]
    for name in ("Interval", "Finding"):
        parts[name]["additionalProperties"] = False
    for end in ("low", "high"):  # NaN in Python, null in JSON
        parts["Interval"]["properties"][end]["type"] = ["number", "null"]
    parts["Interval"]["properties"]["units"]["minimum"] = 1
    parts["Finding"]["properties"]["source"]["pattern"] = "^/"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def table(name: str, fields: dict[str, Any], *, about: str | None = None) -> Any:
    """Return a class with these fields and no others."""
    closed = ConfigDict(extra="forbid")
    return create_model(name, __config__=closed, __doc__=about, **fields)


def rows(name: str, texts: tuple[str, ...], fields: dict[str, Any]) -> Any:
    """Return the type of a list of rows, whose first columns are texts."""
    return list[table(name, dict.fromkeys(texts, str) | fields)]


def main() -> None:
    """Write the schema."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    text = json.dumps(scores_schema(), indent=1, ensure_ascii=False)
    PATH.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
