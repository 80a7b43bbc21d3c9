"""Script repair: word patterns that keep combining marks with their letters.

A byte-level tokenizer splits text into words by a pattern before any merge, and no merge crosses a
split. Many patterns match letters (`\\p{L}`) but not the marks of Thai, Hindi, Khmer and other
scripts (karpathy/minbpe issue 73, openai/tiktoken issue 292). They also split at signs between two
letters of one word, as in Ukrainian `п'ять` or Catalan `col·legi`.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, pairwise
from typing import Any

import regex
from fontTools.unicodedata import script
from tokenizers import Regex, Tokenizer
from tokenizers.pre_tokenizers import Metaspace, Split
from transformers import PreTrainedTokenizerFast

from ..files import package_yaml
from ..languages import KNOWN
from ..tokens import spread

REGEX = package_yaml("vocabulary/regex.yaml")
GPT2_PATTERN, MARKS, JOINERS, INNER, ENGLISH, *_ = REGEX.values()
PART = regex.compile(REGEX["part"], regex.DOTALL)
# What `\w` matches in `tokenizers` (Oniguruma), inside a class; in `regex` also joiners.
WORD = r"\p{Alphabetic}\p{M}\p{Decimal_Number}\p{Pc}"
BETWEEN = regex.compile(rf"(?<=(\p{{L}})\p{{M}}*)[{INNER}](?=\p{{L}})")
# Letters beside which an apostrophe may be English or a quotation mark, as the inside of a class.
QUOTING = {*KNOWN["with_dictionary"], *KNOWN["without_words"], "Hang"}
BARE = r"\p{Latn}" + "".join(rf"\p{{{code}}}" for code in sorted(QUOTING))
RARE = 0.001  # fraction of split letter clusters below which a pattern is not repaired
SAMPLED = 300  # characters per excerpt

Pair = tuple[str, str]  # the characters before and after a cut
Cuts = Counter[Pair]


@dataclass(frozen=True)
class Repair:
    """A repaired pre-tokenizer.

    Attributes:
        pre_tokenizer: the repaired one, as in `tokenizer.json`.
        joined: characters that now stay with letters, in the syntax of the pattern; may be empty.
        inside: pattern of the signs that now stay between two letters; may be empty.
    """

    pre_tokenizer: dict[str, Any]
    joined: str
    inside: str


def cuts_inside(pre_tokenizer: Any, text: str, pattern: Any) -> Iterator[tuple[str, set[int]]]:
    """Yield the matches of a pattern, and the places inside each at which a pre-tokenizer splits.

    Args:
        pre_tokenizer: of the `tokenizers` library; None does not split.
        text: to search.
        pattern: a regular expression.
    """
    starts = _starts(pre_tokenizer, text)
    for match in regex.finditer(pattern, text):
        yield match[0], starts.intersection(range(match.start() + 1, match.end()))


def splits_characters(pre_tokenizer: Any, texts: Iterable[str]) -> bool:
    """Return whether a pre-tokenizer splits inside a character of the texts.

    Falcon's converts text to bytes and then splits at digits, but some bytes are spelled by digits.
    """
    pieces = (pre_tokenizer.pre_tokenize_str(text) for text in texts)
    borders = (pair for spans in pieces for pair in pairwise(span for _, span in spans))
    return any(end > start for (_, end), (start, _) in borders)


def _starts(pre_tokenizer: Any, text: str) -> set[int]:
    """Return the start of each piece of a text."""
    pieces = pre_tokenizer.pre_tokenize_str(text) if pre_tokenizer else ()
    return {start for _, (start, _) in pieces}


def find_cuts(pre_tokenizer: Any, texts: Iterable[str]) -> tuple[Cuts, int]:
    """Count splits inside grapheme clusters that begin with a letter.

    Args:
        pre_tokenizer: of the `tokenizers` library; None does not split.
        texts: evenly spaced excerpts are used.

    Returns:
        The splits by the characters around them, and the number of letter clusters.
    """
    cuts, clusters = Cuts(), 0
    for text in spread(texts, length=SAMPLED):
        for _, places in cuts_inside(pre_tokenizer, text, r"(?=\p{L})\X"):
            clusters += 1
            cuts.update((text[at - 1], text[at]) for at in places)
    return cuts, clusters


def as_the_pattern_sees(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str]) -> list[str]:
    """Return evenly spaced excerpts of texts in the normal form of a tokenizer."""
    normalised = getattr(tokenizer.backend_tokenizer.normalizer, "normalize_str", str)
    return list(map(normalised, spread(texts, length=SAMPLED)))


def propose_repair(
    tokenizer: PreTrainedTokenizerFast, texts: Iterable[str], others: Iterable[str] = ()
) -> Repair | None:
    """Return the smallest change of the word pattern that does not split the words of the texts.

    The changed pattern splits other text as before: text without marks after letters, and without
    the new signs between two letters of their script.

    Args:
        tokenizer: its word pattern is repaired.
        texts: in the language that gets new tokens.
        others: texts in which signs between two letters must be split as before.

    Returns:
        None if the pattern splits no character and fewer than 1 in 1,000 letter clusters, or cannot
        be parsed.
    """
    texts = as_the_pattern_sees(tokenizer, texts)
    before = tokenizer.backend_tokenizer.pre_tokenizer
    spec = whole = as_data(before) if before else {"type": "Sequence", "pretokenizers": []}
    bytes_last = sorted(spelled_out(spec), key=lambda part: part["type"] == "ByteLevel")
    if bytes_last != spelled_out(spec) and splits_characters(before, texts):
        whole = {"type": "Sequence", "pretokenizers": bytes_last}
    marked = any(regex.search(rf"[{MARKS}{JOINERS}]", text) for text in texts)
    cuts, clusters = find_cuts(before, texts) if marked else (Cuts(), 0)
    inside, letters = find_inside(before, texts, others)
    cuts = cuts if cuts.total() >= RARE * clusters else Cuts()
    repaired, joined, left = whole, "", cuts
    while more := [part for part in (MARKS, JOINERS) if part not in joined and _cut(part, left)]:
        joined += "".join(more)
        join = partial(join_to_letters, joined=joined, cuts=list(cuts))
        repaired = repair_pre_tokenizer(whole, join)
        # Joiners may now be split from the marks before them, which was no split before.
        left, _ = find_cuts(without_model({"pre_tokenizer": repaired}).pre_tokenizer, texts)
    if 2 * left.total() > cuts.total():  # the repair did not reach the part that splits
        repaired, joined = whole, ""
    whole = repair_pre_tokenizer(repaired, partial(join_inside, inside=inside, letters=letters))
    after = without_model({"pre_tokenizer": whole}).pre_tokenizer
    if inside and {*find_inside(after, texts)[0].split("|")} & {*inside.split("|")}:
        whole, inside = repaired, ""  # another part of the pattern splits there, too
    return None if whole == spec else Repair(whole, joined, inside)


def find_inside(part: Any, texts: Sequence[str], others: Iterable[str] = ()) -> tuple[str, str]:
    """Find signs between two letters of a word at which the word pattern wrongly splits.

    Returns:
        A pattern of the signs between letters of their script, and such letters. Both are empty if
        fewer than 1 in 1,000 words are split there, or if the other texts have the same signs.
    """
    cut: Counter[str] = Counter()
    words, letters = 0, {}
    for text in texts:
        words += len(text.split())
        found = list(BETWEEN.finditer(text))
        starts = _starts(part, text) if found else set()
        for match in found:
            letter, mark = match[1], match[0]
            code = script(letter)
            # In such a script, a quotation mark between letters separates words or particles.
            if code not in QUOTING and starts & {match.start(), match.end()}:
                place = rf"(?<=[\p{{{code}}}\p{{M}}]){regex.escape(mark)}(?=\p{{{code}}})"
                cut[place] += 1
                letters[place] = letter.lower() + letter.upper()
    places = [place for place, count in sorted(cut.items()) if count >= RARE * words]
    for text in chain([ENGLISH], others):
        if not (places := [place for place in places if not regex.search(place, text)]):
            break
    return "|".join(places), "".join(letters[place] for place in places)


def _cut(part: str, cuts: Cuts) -> bool:
    """Return whether a split is before a character of a class."""
    return any(regex.fullmatch(part, after) for _, after in cuts)


def without_model(data: Mapping[str, Any]) -> Tokenizer:
    """Return the tokenizer of a tokenizer.json without its model and added tokens."""
    nothing = {"type": "BPE", "vocab": {}, "merges": []}
    return Tokenizer.from_str(json.dumps({**data, "model": nothing, "added_tokens": []}))


def repair_pre_tokenizer(spec: dict[str, Any], rewrite: Callable[[str], str]) -> dict[str, Any]:
    """Rewrite every pattern of a pre-tokenizer, given as in `tokenizer.json`."""
    parts = [dict(part) for part in spelled_out(spec)]
    for part in parts:
        if part["type"] == "Split" and "Regex" in part["pattern"]:
            part["pattern"] = {"Regex": rewrite(part["pattern"]["Regex"])}
    if parts == spelled_out(spec):
        return spec
    return parts[0] if len(parts) == 1 else {"type": "Sequence", "pretokenizers": parts}


def spelled_out(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the parts of a pre-tokenizer as a list; the built-in pattern of `ByteLevel` becomes a
    separate part.
    """
    if spec["type"] == "Sequence":
        return [part for one in spec["pretokenizers"] for part in spelled_out(one)]
    if spec["type"] == "ByteLevel" and spec["use_regex"]:
        prefix = as_data(Metaspace(" ", "always", split=False))
        split = as_data(Split(Regex(GPT2_PATTERN), "isolated"))
        to_bytes = {**spec, "use_regex": False, "add_prefix_space": False}
        return [prefix, split, to_bytes] if spec["add_prefix_space"] else [split, to_bytes]
    return [spec]


def as_data(pre_tokenizer: Any) -> dict[str, Any]:
    """Return a pre-tokenizer in the form of `tokenizer.json`.

    Example:
        >>> as_data(Metaspace("_", "never", split=False))["replacement"]
        '_'
    """
    return dict(json.loads(pre_tokenizer.__getstate__()))


def join_to_letters(pattern: str, joined: str = MARKS, cuts: Sequence[Pair] = (("ก", "ั"),)) -> str:
    """Rewrite a word pattern so that parts that match a letter also match the marks after it.

    Parts that already match the marks, and negated classes, do not change.

    Args:
        pattern: a regular expression.
        joined: characters to keep with letters, as the inside of a character class.
        cuts: pairs of characters; a part of the pattern is changed if it matches the first but not
            the second.

    Example:
        >>> join_to_letters(r" ?\\p{L}+|[^\\s\\p{L}\\p{N}]+")
        ' ?\\\\p{L}[\\\\p{L}\\\\p{M}]*|[^\\\\s\\\\p{L}\\\\p{N}]+'
    """

    def joining(part: Any) -> str:
        atom, quantifier = part["atom"], part["quantifier"] or ""
        if not any(_takes(atom, letter) and not _takes(atom, mark) for letter, mark in cuts):
            return str(part[0])
        if quantifier.startswith("+"):
            inside = atom[1:-1] if atom.startswith("[") and "&&" not in atom else atom
            return f"{atom}[{inside}{joined}]*{quantifier[1:]}"
        return f"(?:{atom}[{joined}]*){quantifier}" if quantifier else f"{atom}[{joined}]*"

    return str(PART.sub(joining, pattern))


def join_inside(pattern: str, inside: str, letters: str) -> str:
    """Rewrite a word pattern so that a run of letters continues across signs between them.

    Example:
        >>> join_inside(r" ?\\p{L}+|\\s", "(?<=[к])'(?=[к])", "к")
        " ?\\\\p{L}+(?:(?:(?<=[к])'(?=[к]))[\\\\p{L}\\\\p{M}]+)*|\\\\s"
    """
    more = rf"(?:(?:{inside})[\p{{L}}\p{{M}}]+)*" if inside else ""

    def going_on(part: Any) -> str:
        run = part["quantifier"] and part["quantifier"][0] in "+*"
        takes = run and any(_takes(part["atom"], letter) for letter in letters)
        return str(part[0] + (more if takes else ""))

    return str(PART.sub(going_on, pattern))


def _takes(atom: str, character: str) -> bool:
    """Return whether a character class or escape that is not negated matches a character."""
    if not atom.startswith(("\\p", "\\w", "[")) or atom.startswith("[^"):
        return False
    atom = atom.replace(r"\w", WORD if atom.startswith("[") else f"[{WORD}]")
    try:
        return regex.fullmatch(atom, character, flags=regex.V1) is not None
    except regex.error:  # syntax of another regular expression library: no change
        return False
