"""Script repair: word patterns that let combining marks stay with the letters they stand on.

A byte-level tokenizer cuts text into words by a pattern before any merge, and no merge crosses a
cut. Many patterns know letters (`\\p{L}`) but not the marks that Thai, Hindi, Khmer and others put
on them (the flaw is described in karpathy/minbpe issue 73 and openai/tiktoken issue 292), nor what
stands between two letters of one word, as in Ukrainian `п'ять` or Catalan `col·legi`.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import regex
from fontTools.unicodedata import script
from tokenizers import Regex, Tokenizer
from tokenizers.pre_tokenizers import Metaspace, Split
from transformers import PreTrainedTokenizerFast

from ..languages import WITH_DICTIONARY, WITHOUT_WORDS
from ..tokens import spread

GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
MARKS = r"\p{M}"
JOINERS = r"\p{Join_Control}"  # the invisible U+200C and U+200D of Persian and Indic text
# What stands inside words: marks of Unicode's word boundaries (UAX #29) but full stop and colon,
# which English has there, and what is typed in their place.
INNER = "'’‘＇`´·‧·՟״׳\""
BETWEEN = regex.compile(rf"(?<=(\p{{L}})\p{{M}}*)[{INNER}](?=\p{{L}})")
NO_SPACES = WITH_DICTIONARY | WITHOUT_WORDS
ENGLISH = "don't, don’t"  # where its patterns are right to cut
RARE = 0.001  # cut clusters, as a share of all letter clusters, that leave a pattern alone
SAMPLED = 300  # characters of each excerpt that is looked at
# A pattern as atoms (a class, an escape, any other character) with what quantifies each.
PART = regex.compile(
    r"(?P<atom>[(|])|(?P<atom>(?P<class>\[(?:\\.|[^][\\]|(?&class))*+\])|\\[pPx]\{[^}]*\}|\\[pP]\w|\\.|.)"
    r"(?P<quantifier>[*+?][+?]?|\{\d*,?\d*\}[+?]?)?",
    regex.DOTALL,
)

Pair = tuple[str, str]  # the characters before and after a cut
Cuts = Counter[Pair]


@dataclass(frozen=True)
class Repair:
    """A change of a pre-tokenizer.

    Attributes:
        pre_tokenizer: the changed one, as in `tokenizer.json`.
        joined: what rides with letters now, in the syntax of the pattern.
        inside: what stays between two letters now: a pattern, empty if nothing does.
    """

    pre_tokenizer: dict[str, Any]
    joined: str
    inside: str


def cuts_inside(pre_tokenizer: Any, text: str, pattern: Any) -> Iterator[tuple[str, set[int]]]:
    """Yield what a pattern finds in a text, and the places where a pre-tokenizer cuts inside it.

    Args:
        pre_tokenizer: of the `tokenizers` library; None cuts nothing.
        text: any.
        pattern: a regular expression.
    """
    starts = _starts(pre_tokenizer, text)
    for match in regex.finditer(pattern, text):
        yield match[0], starts.intersection(range(match.start() + 1, match.end()))


def _starts(pre_tokenizer: Any, text: str) -> set[int]:
    """Return where the pieces of a text begin."""
    pieces = pre_tokenizer.pre_tokenize_str(text) if pre_tokenizer else ()
    return {start for _, (start, _) in pieces}


def find_cuts(pre_tokenizer: Any, texts: Iterable[str]) -> tuple[Cuts, int]:
    """Count where the word pattern cuts inside a grapheme cluster that begins with a letter.

    Args:
        pre_tokenizer: of the `tokenizers` library; None cuts nothing.
        texts: excerpts from all over them are looked at.

    Returns:
        The cuts by the characters around them, and the number of letter clusters looked at.
    """
    cuts, clusters = Cuts(), 0
    for text in spread(texts, length=SAMPLED):
        for _, places in cuts_inside(pre_tokenizer, text, r"(?=\p{L})\X"):
            clusters += 1
            cuts.update((text[at - 1], text[at]) for at in places)
    return cuts, clusters


def propose_repair(
    tokenizer: PreTrainedTokenizerFast, texts: Iterable[str], others: Iterable[str] = ()
) -> Repair | None:
    """The smallest change of the word pattern that keeps the words of the texts whole.

    Text in which no mark follows a letter, and none of what stays inside words now stands between
    two letters of their script, is cut by the changed pattern exactly as before.

    Args:
        tokenizer: whose word pattern it is.
        texts: in the language that gets new tokens.
        others: text in which nothing that stands between two letters may be cut otherwise.

    Returns:
        None where the pattern cuts fewer than one letter cluster in a thousand, or cannot be read.
    """
    texts = spread(texts, length=SAMPLED)
    before = tokenizer.backend_tokenizer.pre_tokenizer
    marked = any(regex.search(rf"[{MARKS}{JOINERS}]", text) for text in texts)
    cuts, clusters = find_cuts(before, texts) if marked else (Cuts(), 0)
    inside, letters = find_inside(before, texts, others)
    if cuts.total() < RARE * clusters or not cuts:
        cuts = Cuts()
        if not inside:
            return None
    spec, joined, left = as_data(before), "", cuts
    repaired = spec
    while more := [part for part in (MARKS, JOINERS) if part not in joined and _cut(part, left)]:
        joined += "".join(more)
        join = partial(join_to_letters, joined=joined, cuts=list(cuts))
        repaired = repair_pre_tokenizer(spec, join)
        # Marks that ride with letters may be cut off the joiners after them, which was no cut.
        left, _ = find_cuts(without_model({"pre_tokenizer": repaired}).pre_tokenizer, texts)
    repaired = repair_pre_tokenizer(repaired, partial(join_inside, inside=inside, letters=letters))
    return None if repaired == spec else Repair(repaired, joined, inside)


def find_inside(
    pre_tokenizer: Any, texts: Sequence[str], others: Iterable[str] = ()
) -> tuple[str, str]:
    """Find what the word pattern cuts off between two letters of a word, and should not.

    Returns:
        A pattern of it, between letters of its script, and such letters; empty where fewer than one
        word in a thousand is cut there, or where the other texts have the same.
    """
    cut: Counter[str] = Counter()
    words, letters = 0, {}
    for text in texts:
        words += len(text.split())
        found = list(BETWEEN.finditer(text))
        starts = _starts(pre_tokenizer, text) if found else set()
        for match in found:
            letter, mark = match[1], match[0]
            code = script(letter)
            # Without spaces, a quotation mark between letters stands between words.
            if code not in NO_SPACES and starts & {match.start(), match.end()}:
                place = rf"(?<=[\p{{{code}}}\p{{M}}]){regex.escape(mark)}(?=\p{{{code}}})"
                cut[place] += 1
                letters[place] = letter
    places = [place for place, count in sorted(cut.items()) if count >= RARE * words]
    for text in chain([ENGLISH], others):
        if not places:
            break
        places = [place for place in places if not regex.search(place, text)]
    return "|".join(places), "".join(letters[place] for place in places)


def _cut(part: str, cuts: Cuts) -> bool:
    """Return whether a cut stands before a character of a class."""
    return any(regex.fullmatch(part, after) for _, after in cuts)


def without_model(data: Mapping[str, Any]) -> Tokenizer:
    """Return what a tokenizer.json says, but for its model and its added tokens."""
    nothing = {"type": "BPE", "vocab": {}, "merges": []}
    return Tokenizer.from_str(json.dumps({**data, "model": nothing, "added_tokens": []}))


def repair_pre_tokenizer(spec: dict[str, Any], rewrite: Callable[[str], str]) -> dict[str, Any]:
    """Rewrite every pattern of a pre-tokenizer, given as in `tokenizer.json`."""
    parts = [
        {**part, "pattern": {"Regex": rewrite(part["pattern"]["Regex"])}}
        if part["type"] == "Split" and "Regex" in part["pattern"]
        else part
        for part in spelled_out(spec)
    ]
    if parts == spelled_out(spec):
        return spec
    return parts[0] if len(parts) == 1 else {"type": "Sequence", "pretokenizers": parts}


def spelled_out(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The parts of a pre-tokenizer in a row, with the pattern that `ByteLevel` has built in as a
    part of its own.
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
    """Return a pre-tokenizer as `tokenizer.json` writes it.

    Example:
        >>> as_data(Metaspace("_", "never", split=False))["replacement"]
        '_'
    """
    return dict(json.loads(pre_tokenizer.__getstate__()))


def join_to_letters(pattern: str, joined: str = MARKS, cuts: Sequence[Pair] = (("ก", "ั"),)) -> str:
    """Rewrite a word pattern so that what takes a letter takes the marks after it too.

    Parts that take the marks already, and negated classes, stay as they are.

    Args:
        pattern: a regular expression.
        joined: what is to ride with letters, as the inside of a character class.
        cuts: a part of the pattern is changed when it takes the first character of such a pair
            without the second.

    Example:
        >>> join_to_letters(r" ?\\p{L}+|[^\\s\\p{L}\\p{N}]+")
        ' ?\\\\p{L}[\\\\p{L}\\\\p{M}]*|[^\\\\s\\\\p{L}\\\\p{N}]+'
    """

    def joining(part: Any) -> str:
        atom, quantifier = part["atom"], part["quantifier"] or ""
        if not any(_takes(atom, letter) and not _takes(atom, mark) for letter, mark in cuts):
            return str(part[0])
        if quantifier.startswith("+"):
            inside = atom[1:-1] if atom.startswith("[") else atom
            return f"{atom}[{inside}{joined}]*{quantifier[1:]}"
        return f"(?:{atom}[{joined}]*){quantifier}" if quantifier else f"{atom}[{joined}]*"

    return str(PART.sub(joining, pattern))


def join_inside(pattern: str, inside: str, letters: str) -> str:
    """Rewrite a word pattern so that a run of some letters goes on over what stands between them.

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
    """Whether a class or an escape, not negated, takes a character."""
    if not atom.startswith(("\\p", "\\w", "[")) or atom.startswith("[^"):
        return False
    try:
        return regex.fullmatch(atom, character, flags=regex.V1) is not None
    except regex.error:  # syntax of the other regular expression library: leave it alone
        return False
