import pandas as pd
import pytest

import langadapt_utils as la
from langadapt_utils.evaluation.scores import Scores


@pytest.fixture(scope="module")
def scores() -> Scores:
    documents = pd.DataFrame(
        [
            {
                "model": model,
                "language": language,
                "source": source,
                "domain": domain,
                "id": f"{domain}{i}",
            }
            | {
                "bits": (100 + i) * (0.7 if model == "adapted" and language == "hu" else 1.0),
                "bytes": 50,
            }
            for model in ("base", "adapted")
            for language, source in (("hu", "builtin"), ("en", "builtin"), ("en", "wikipedia"))
            for domain in ("news", "science")
            for i in range(5)
        ]
    )
    items = pd.DataFrame(
        [
            {"model": model, "language": "hu", "kind": "pairs", "id": i, "chance": 0.5}
            | {"correct": model == "adapted" or i % 2 == 0}
            for model in ("base", "adapted")
            for i in range(40)
        ]
    )
    return Scores(["base", "adapted"], "hu", documents, items, [], 200)


def test_changes_are_drawn_with_their_intervals(scores: Scores) -> None:
    ax = la.plot_changes(scores)
    rows = [
        label.get_text() for label in ax.get_yticklabels()
    ]  # one per text, whatever its domains
    assert [row.partition("\n")[0] for row in rows] == ["English", "English", "Hungarian"]
    assert "Hungarian falls by 30.0%" in ax.get_title(loc="left").replace("\n", " ")
    widths = [line.get_xdata() for line in ax.lines if len(line.get_xdata()) == 2]
    expected = [(change.low, change.high) for change in scores.bits_per_byte().change.iloc[::-1]]
    assert [tuple(width) for width in widths[:3]] == [pytest.approx(pair) for pair in expected]
