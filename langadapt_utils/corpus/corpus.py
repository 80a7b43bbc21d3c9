"""The corpus of a run: documents per language, split into training and held-out documents."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from ..chat import messages_of
from ..errors import CorpusError
from ..files import data_folder, read_jsonl
from ..recipe import BUILT_IN, CorpusRecipe
from ..sources import built_in_languages, built_in_rows
from .contamination import CONTAMINATED, GRAM, find_contamination, is_long, normalised
from .documents import at_most_of_each_source, built_in_documents, read_source, without_repeats
from .items import ITEM_KINDS, item_texts
from .readers import MESSAGES, Source

HELD_OUT = 2_000  # maximum number of held-out documents per domain; the rest is for training
KINDS, FREE = ["source", "domain"], 2  # of documents; a document whose side is not yet chosen
BATCH = 1_000  # documents that are read at once
COMPARED, FEW = 200, 10  # pairs of texts whose lengths are compared; fewer do not tell
RELATED = 0.4  # rank correlation of the lengths of translations; 0.9 in the built-in text
MEASURED, SHOWN = 1_000, 20_000  # texts for fertility, and characters of each, if not parallel

Parts = dict[str, Dataset]  # documents by language


@dataclass(frozen=True)
class Corpus:
    """Documents per language, split into training and held-out documents.

    Each data set has one row per document, with the columns `id`, `source`, `domain` and `text`. A
    document and its translation have the same id and are on the same side of the split.
    """

    language: str
    train: Parts
    heldout: Parts
    # Held-out sentences, with the columns `id`, `domain` and one per language; may be empty.
    parallel: pd.DataFrame
    read: pd.DataFrame  # one row per file: how it was read, and counts
    repeats: dict[str, dict[str, int]]  # number of dropped documents, by language and kind
    others: Parts  # documents in languages that are only evaluated, by code
    chat: Dataset  # conversations to learn from

    def summary(self) -> pd.DataFrame:
        """Count documents and megabytes per language, source and split."""
        counts, sizes = Counter[tuple[str, ...]](), Counter[tuple[str, ...]]()
        for split, part in (("train", self.train), ("held out", self.heldout)):
            for language, documents in part.items():
                for batch in documents.iter(BATCH):
                    for source, text in zip(batch["source"], batch["text"], strict=True):
                        counts[language, source, split] += 1
                        sizes[language, source, split] += len(text.encode())
        rows = [(*key, count, sizes[key] / 1e6) for key, count in counts.items()]
        return pd.DataFrame(rows, columns=["language", "source", "split", "documents", "megabytes"])

    def measuring_texts(self) -> tuple[dict[str, list[str]], bool]:
        """Return held-out text of English and the target language, and whether it is parallel."""
        languages = ["en", self.language]
        if len(self.parallel):
            return {code: self.parallel[code].tolist() for code in languages}, True
        texts = {c: [t[:SHOWN] for t in self.heldout[c]["text"][:MEASURED]] for c in languages}
        return texts, False


def load_corpus(recipe: CorpusRecipe, language: str, *, seed: int = 0) -> Corpus:
    """Read documents in the target language and English, drop repeats, and hold out a part.

    Args:
        recipe: sources, held-out fraction, and treatment of contamination.
        language: code of the target language, such as `hu`.
        seed: of the split.

    Raises:
        CorpusError: a source is missing, empty, not UTF-8, or has no text in the language.
    """
    if named := next((name for name in recipe.others if name.startswith(f"{language}:")), ""):
        raise CorpusError(f"corpus.others has '{named}', the target language: remove it")
    train, heldout, read, repeats, tables = {}, {}, {}, {}, []
    follow: dict[str, int] = {}
    for code, sources in ((language, recipe.target), ("en", recipe.english)):
        if not sources:
            raise CorpusError(f"no source in '{code}': set corpus.target and corpus.english")
        read[code] = [read_source(source, code, recipe) for source in sources]
    tied = translations(read[language], read["en"])
    for code, parts in read.items():
        documents, repeats[code] = without_repeats([part for part, _ in parts])
        split = split_documents(documents, recipe.heldout_share, seed, follow)
        train[code], heldout[code] = split
        if tied:
            sides = {name: side for side, part in enumerate(split) for name in part["id"][:]}
            follow = {english: sides.get(target, -1) for english, target in tied.items()}
        tables += [{**row, "language": code} for _, about in parts for row in about]
    chat = _conversations(recipe, language)
    if recipe.contamination == "drop":
        heldout = _without_contamination([*train.values(), chat], heldout)
    target, english = (set(heldout[code]["id"]) for code in (language, "en"))
    parallel = _parallel_sentences(language, target & english)
    if not len(parallel):
        parallel = _parallel_documents(heldout, language, tied)
    if len(parallel) and parallel["en"].equals(parallel[language]):
        raise CorpusError(f"'{language}' and 'en' have the same text: name two sources or columns")
    about = pd.DataFrame(tables).drop(columns=["place", "cut", "rows"]), repeats
    others = _other_languages(recipe, language, target | english)
    return Corpus(language, train, heldout, parallel, *about, others, chat)


def built_in_corpus(language: str) -> Corpus:
    """Return the project's own documents in a built-in language and in English.

    Raises:
        CorpusError: the language is not built in.
    """
    return load_corpus(CorpusRecipe(english=[BUILT_IN]), language)


def _other_languages(recipe: CorpusRecipe, language: str, heldout: set[str]) -> Parts:
    """Read documents in third languages; of the built-in ones, only those that are held out."""
    found: dict[str, list[Dataset]] = defaultdict(list)
    for named in recipe.others:
        code, _, source = named.partition(":")
        if named != BUILT_IN:
            found[code].append(read_source(source, code, recipe)[0])
            continue
        for other in [code for code in built_in_languages() if code != language]:
            documents = built_in_documents(other)
            indices = [i for i, name in enumerate(documents["id"]) if name in heldout]
            found[other] += [documents.select(indices)] if indices else []
    return {code: without_repeats(parts)[0] for code, parts in found.items() if parts}


def _conversations(recipe: CorpusRecipe, language: str) -> Dataset:
    """Read conversations, each as one text, without repeats and prompts of the evaluation."""
    own = [str(path) for code in ("en", language) for path in data_folder().glob(f"chat_{code}.*")]
    sources = [path for name in recipe.chat for path in (own if name == BUILT_IN else [name])]
    settings = recipe.model_copy(update={"text_field": MESSAGES})
    documents, _ = without_repeats([read_source(name, "", settings)[0] for name in sources])
    asked = {normalised(row["prompt"]) for row in read_jsonl(data_folder() / "eval_chat.jsonl")}
    turns = ({normalised(m["content"]) for m in messages_of(text)} for text in documents["text"])
    return documents.select([place for place, texts in enumerate(turns) if not asked & texts])


def translations(target: Sequence[Source], english: Sequence[Source]) -> dict[str, str]:
    """Find documents that are translations of each other.

    Translations have the same id, or without own ids the same position in files of one name with
    equally many documents, or in two sources whose files all have equally many. Own ids without an
    equal in the other language count as none. The lengths of translations correlate; texts that
    only have the same numbers are no translations.

    Returns:
        English id to target id.
    """
    tied: dict[str, str] = {}
    for documents, about in target:
        ids = _column(documents, "id")
        for others, about_others in english:
            names = [name for name in others["id"][:] if name not in tied]
            cut = any(row["cut"] for row in (*about, *about_others))  # then sizes tell nothing
            full = ([row for row in a if row["documents"]] for a in (about, about_others))
            sizes, of_others = ({r["place"]: 0 if cut else r["rows"] for r in own} for own in full)
            places = {name: name.rpartition("-") for name in names}  # no file is that of an own id
            whole = [n for n in names if sizes.get(place := places[n][0]) == of_others.get(place)]
            found = {name: name for name in _among(ids, whole)}
            if by_position := not found and [*sizes.values()] == [*of_others.values()]:
                partners = dict(zip(of_others, sizes, strict=True))
                other = {n: f"{partners.get(place)}-{nth}" for n, (place, _, nth) in places.items()}
                there = _among(ids, other.values())
                found = {name: other[name] for name in names if other[name] in there}
                if not found and FEW <= len(documents) == len(others) == sum(sizes.values()):
                    pairs = zip(others["id"], documents["id"], strict=True)
                    found = {name: own for name, own in pairs if name not in tied}
            # Other own ids than numbers are names.
            doubtful = by_position or all(n.isdecimal() or places[n][0] in sizes for n in found)
            if found and (not doubtful or _belong_together(found, others, documents, cut)):
                tied |= found
                if by_position:  # this text has its translation
                    break
    return tied


def _belong_together(tied: Mapping[str, str], english: Dataset, own: Dataset, cut: bool) -> bool:
    """Return whether long texts have long translations.

    If all texts are equally long, the lengths tell nothing, and files that were read in part
    (`cut`) do not belong together. Fewer than ten belong together if they are most of the English
    texts.
    """
    if len(tied) < FEW:  # ids that few of the texts share are equal by chance
        return 2 * len(tied) >= len(set(english["id"]))
    some, ranks = random.Random(0).sample(sorted(tied.items()), min(len(tied), COMPARED)), []
    for documents, names in zip((english, own), zip(*some, strict=True), strict=True):
        asked = pa.array(names, pa.string())
        there = np.flatnonzero(pc.is_in(_column(documents, "id"), value_set=asked).to_numpy())
        rows = documents.select(there).to_pandas()
        ranks.append(rows.text.str.len().groupby(rows.id).sum()[list(names)].rank().to_numpy())
    correlation = float(pd.Series(ranks[0]).corr(pd.Series(ranks[1])))
    return correlation >= RELATED or not (cut or correlation < RELATED)


def _parallel_documents(heldout: Parts, language: str, tied: dict[str, str]) -> pd.DataFrame:
    """Return held-out documents that are translations of each other, at most 1,000."""
    tables = (heldout[code].to_pandas() for code in ("en", language))
    english, own = (table.drop_duplicates("id", keep=False) for table in tables)
    english[language] = english["id"].map(tied).map(own.set_index("id")["text"])
    found = english.rename(columns={"text": "en"}).dropna(subset=[language])[:MEASURED]
    return found[["id", "domain", "en", language]].reset_index(drop=True)


def split_documents(
    documents: Dataset, share: float, seed: int, follow: Mapping[str, int] | None = None
) -> tuple[Dataset, Dataset]:
    """Split documents; `share` of each domain of a source is held out.

    Small domains are pooled, and small sources. The number is rounded up, at most about 2,000. The
    choice depends only on the seed and the document ids, so documents with one id, such as
    translations, are on the same side.

    Args:
        documents: to split.
        share: fraction that is held out.
        seed: of the choice.
        follow: side of each translation, by id: 0 training, 1 held out, -1 neither.
    """
    names = _column(documents, "id").combine_chunks().dictionary_encode()
    numbers, names = names.indices.to_numpy(), names.dictionary  # equal ids have one number
    sides = np.full(len(names), FREE)
    if follow:
        followed = pc.index_in(names, pa.array(list(follow), pa.string())).fill_null(len(follow))
        sides = np.array([*follow.values(), FREE])[followed.to_numpy()]
    kinds = pd.DataFrame({k: _column(documents, k).dictionary_encode().to_pandas() for k in KINDS})
    for column, group in (("domain", KINDS), ("source", ["source"])):
        large = share * kinds.groupby(group, observed=True).source.transform("size") >= 1
        kinds[column] = kinds[column].astype(object).where(large, "")
    for (source, domain), places in sorted(kinds.groupby(KINDS, observed=True).indices.items()):
        ids, sizes = np.unique(numbers[places], return_counts=True)
        free = sides[ids] == FREE
        ids, sizes = ids[free], sizes[free]  # an id may have several documents
        order = pc.sort_indices(names.take(ids)).to_pylist()
        # Independent of the folder of the file.
        random.Random(f"{seed} {(Path(source).name, domain)}").shuffle(order)
        most = min(HELD_OUT, share * sizes.sum())
        order.sort(key=lambda place: sizes[place] > most + 1)
        small = max(1, int((sizes <= most + 1).sum()))  # a larger group of one id is trained
        order, total = ids[order], sizes[order].cumsum()
        # Of small sources, which are pooled, some documents are trained.
        held = min(int(np.searchsorted(total, most)) + 1, small, len(order) - (not source))
        sides[order[:held]], sides[order[held:]] = 1, 0
    rest, heldout = (np.flatnonzero(sides[numbers] == side) for side in (0, 1))
    if not (len(rest) and len(heldout)):
        problem = f"{documents['source'][0]}: {len(documents)} documents with {len(names)} ids"
        few = f"are too few to hold out {share:.0%} for evaluation: give more or longer texts"
        raise CorpusError(f"{problem} {few} (blank lines separate documents in .txt files)")
    return documents.select(rest), documents.select(heldout)


def _column(documents: Dataset, name: str) -> pa.ChunkedArray:
    """Return a column as an Arrow array, which takes less memory than a Python object per row."""
    batches = documents.select_columns(name).with_format("arrow").iter(BATCH)
    parts = [batch[name].combine_chunks().cast(pa.string()) for batch in batches]
    return pa.chunked_array(parts, pa.string())


def _among(ids: pa.ChunkedArray, names: Iterable[str]) -> set[str]:
    """Return the ids that are among some names."""
    return set(ids.filter(pc.is_in(ids, value_set=pa.array(names, pa.string()))).to_pylist())


def _without_contamination(train: list[Dataset], heldout: Parts) -> Parts:
    """Drop held-out documents that also occur, for the most part, in the training text."""
    texts = {(code, n): t for code, part in heldout.items() for n, t in enumerate(part["text"])}
    long = {place: text for place, text in texts.items() if is_long(text)}
    shares = find_contamination(chain.from_iterable(part["text"] for part in train), long)
    copies = set(shares.index[shares > CONTAMINATED])
    places = {code: [n for c, n in texts if c == code and (c, n) not in copies] for code in heldout}
    if lost := [code for code in places if not places[code]]:
        raise CorpusError(f"all held-out text ({lost[0]}) is in the training text, too: add text")
    return {code: heldout[code].select(places[code]) for code in places}


def _parallel_sentences(language: str, ids: set[str]) -> pd.DataFrame:
    asked = [row for row in built_in_rows() if row["id"] in ids]
    found = [row for row in asked if isinstance(row.get(language), list)]
    pairs = ((row, pair) for row in found for pair in zip(row["en"], row[language], strict=True))
    rows = [(row["id"], row["domain"], *pair) for row, pair in pairs]
    return pd.DataFrame(rows, columns=["id", "domain", "en", language])


def check_contamination(corpus: Corpus, *, documents: int = 1_000) -> pd.DataFrame:
    """Check that no evaluation text occurs in the training text, `corpus.train`.

    Evaluation texts are held-out documents and built-in evaluation items. They are looked for in
    the training text of both languages and in conversations.

    Args:
        corpus: to check.
        documents: maximum per source, as for `evaluate`.

    Returns:
        One row per language and kind of text: `tests`, their number, and `largest_share`, the
        largest fraction of n-grams of one text that the training text contains (NaN if all texts
        are too short). Short items are looked for whole; they are no error, because other texts may
        have the same sentence.

    Raises:
        CorpusError: an evaluation text occurs in the training text.

    Example:
        >>> bool((check_contamination(built_in_corpus("hu")).largest_share > CONTAMINATED).any())
        False
    """
    parts = [_test_texts(corpus, code, documents) for code in ("en", corpus.language)]
    tests = pd.concat(parts, ignore_index=True)
    trained = chain.from_iterable(part["text"] for part in (*corpus.train.values(), corpus.chat))
    tests["share"] = find_contamination(trained, tests.text.to_dict())
    if len(copies := tests[(tests.share > CONTAMINATED) & tests.text.map(is_long)]):
        worst = copies.loc[copies.share.idxmax()]
        where = f"'{worst.id}' of the {worst.measured_on} ({worst.language})"
        share = f"{worst.share:.0%} of its {GRAM}-character n-grams; {len(copies)} such texts"
        problem = f"test contamination: {where} also occurs in the training text ({share})"
        drop = ", or set corpus.contamination=drop to exclude such documents from the evaluation"
        other = drop if worst.measured_on == "held-out documents" else ""
        raise CorpusError(f"{problem}: remove the copies{other}")
    kinds = tests.groupby(["language", "measured_on"], sort=False)["share"]
    return kinds.agg(tests="size", largest_share="max").reset_index()


def _test_texts(corpus: Corpus, language: str, documents: int) -> pd.DataFrame:
    """Return the evaluation texts of a language."""
    heldout = at_most_of_each_source(corpus.heldout[language], documents)
    # A short text that others quote is no copy, and two equal documents are one.
    long = [row for row in heldout if is_long(row["text"])]
    texts = [("held-out documents", row["id"], row["text"]) for row in long]
    for kind in ITEM_KINDS:
        texts += [(f"items: {kind}", *item) for item in item_texts(kind, language).items()]
    return pd.DataFrame(texts, columns=["measured_on", "id", "text"]).assign(language=language)
