"""A tokenizer.json as plain data: its family, and changes of its vocabulary.

Three families are supported: byte-level BPE (GPT-2, SmolLM2, Llama 3, Qwen), SentencePiece BPE
(Llama 2, Mistral, Gemma), and Unigram (XGLM).
"""

import copy
import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import chain, groupby
from typing import Any, Literal, Self

import regex
from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.models import BPE, Model, Unigram
from tokenizers.pre_tokenizers import Split
from transformers import PreTrainedTokenizerFast

from ..errors import VocabularyError
from ..tokens import BYTE_ALPHABET, SPACE, as_surfaces, bytes_as_text, surface_bytes
from .change import SENTENCE
from .merges import SEPARATOR, NewToken, count_words
from .patterns import BARE, INNER, JOINERS, as_data, spelled_out, without_model

Family = Literal["byte-level BPE", "SentencePiece BPE", "Unigram"]
REST = rf"[^\p{{L}}\p{{M}}\p{{N}}{SPACE}\r\n\0]"  # neither letter, digit, space nor line end
DIGITS = "[0-9]", r"[^\P{N}0-9]"  # of English, and of other scripts
CONTRACTION = regex.compile(r"['’]\p{L}+")  # a token such as `'s`
MARGIN = 1e-3  # score of a new Unigram piece above its best segmentation, in nats
NEVER = 1e4  # nats below all other pieces, so that no segmentation has the piece


@dataclass(frozen=True)
class Spec:
    """A tokenizer.json of a family that can be extended. Every change returns a new spec."""

    data: dict[str, Any]
    family: Family

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerFast) -> "Spec":
        """Return the spec of a tokenizer; its vocabulary includes the added tokens with their ids.

        Raises:
            VocabularyError: the tokenizer is of another family.
        """
        return _read(tokenizer.backend_tokenizer.to_str())

    @property
    def byte_level(self) -> bool:
        """Whether the vocabulary uses the byte alphabet."""
        return self.family == "byte-level BPE"

    @cached_property
    def vocab(self) -> dict[str, int]:
        """Spelling in the vocabulary to id."""
        if self.family == "Unigram":
            return {piece: index for index, (piece, _) in enumerate(self.data["model"]["vocab"])}
        return dict(self.data["model"]["vocab"])

    @cached_property
    def special(self) -> dict[str, int]:
        """Special and other added tokens: spelling to id."""
        return {token["content"]: token["id"] for token in self.data["added_tokens"]}

    @cached_property
    def found_first(self) -> list[str]:
        """Added tokens that are found in text before merging, also within words, as the normal form
        of the tokenizer spells them. Special ones are none.
        """
        within = [t for t in self.data["added_tokens"] if not (t["special"] or t["single_word"])]
        form = without_model(self.data).normalizer
        read = (
            form.normalize_str(t["content"]) if form and t["normalized"] else t["content"]
            for t in within
        )
        return list(filter(None, read))

    @cached_property
    def bare(self) -> Tokenizer:
        """The model without pre-tokenizer; its input is pre-tokens, joined by `SEPARATOR`."""
        vocab, free = self.data["model"]["vocab"], max(self.vocab.values()) + 1
        if len(self.vocab) == free or self.family == "Unigram":
            bare = Tokenizer(self._compiled)
        else:  # the library would give the separator an id that is taken
            bare = Tokenizer(self._model({**vocab, SEPARATOR: free}))
        bare.add_special_tokens([AddedToken(SEPARATOR, normalized=False)])
        return bare

    @cached_property
    def whole(self) -> Tokenizer:
        """The complete tokenizer, of the `tokenizers` library."""
        # The model is passed as an object: a large vocabulary as text takes twice the time.
        whole = without_model(self.data)
        whole.model = self._compiled
        added = sorted(self.data["added_tokens"], key=lambda token: token["id"])
        for special, tokens in groupby(added, key=lambda token: token["special"]):
            add = whole.add_special_tokens if special else whole.add_tokens
            add([AddedToken(**{n: v for n, v in token.items() if n != "id"}) for token in tokens])
        return whole

    @cached_property
    def _compiled(self) -> Model:
        """The model of the library, which `bare` and `whole` share."""
        return self._model(self.data["model"]["vocab"])

    @cached_property
    def inside(self) -> Self:
        """The spec without the space before a text, to read the rest of a text; itself without."""
        parts = {name: without_prefix(self.data[name]) for name in ("normalizer", "pre_tokenizer")}
        other = replace(self, data=self.data | parts)
        return self if other == self else other

    def _model(self, vocab: Any) -> Model:
        """Return the model of this family with another vocabulary."""
        options = {n: v for n, v in self.data["model"].items() if n != "type" and v is not None}
        if self.family == "Unigram":
            return Unigram(**options | {"vocab": list(map(tuple, vocab))})
        return BPE(**options | {"vocab": vocab, "merges": list(map(tuple, options["merges"]))})

    def count_words(self, texts: Iterable[str]) -> dict[str, int]:
        """Count the words of texts in the alphabet of the model; tokens are learned inside words.

        Words are the pre-tokens. A SentencePiece tokenizer has none, so text is split where its own
        trainer would end a word. Words end where sentences end, so that protection, which is
        measured by sentences, sees all that new tokens change. Added tokens are skipped, because
        they are found before merging.
        """
        parts = spelled_out(self.data["pre_tokenizer"]) if self.data["pre_tokenizer"] else []
        # Converting words to bytes takes longer than counting, so it is done afterwards.
        last = parts[-1] if parts else {"type": ""}
        in_text = self.byte_level and last["type"] == "ByteLevel" and not last["add_prefix_space"]
        parts = parts[:-1] if in_text else parts
        if self.found_first:
            parts = [as_data(Split(Regex(one_of(self.found_first)), "removed")), *parts]
        if not self.byte_level:
            merged = [token for token, index in self.vocab.items() if index not in self.boundaries]
            parts = [*parts, as_data(Split(Regex(word_pattern(merged)), "isolated"))]
        sequence = {"type": "Sequence", "pretokenizers": parts}
        cutter = without_model({**self.data, "pre_tokenizer": sequence})
        if len(cutter.pre_tokenizer.pre_tokenize_str("a. A")) == 1:  # words end where sentences end
            texts = chain.from_iterable(map(SENTENCE.split, texts))
        cut, counts = in_text or not self.byte_level, Counter[str]()
        for word, count in count_words(cutter, texts).items():
            for part in filter(None, SENTENCE.split(word)) if cut else [word]:
                counts[part] += count
        return dict(zip(as_surfaces(counts) if in_text else counts, counts.values(), strict=True))

    @cached_property
    def boundaries(self) -> set[int]:
        """Ids that never merge: special tokens, the unknown token, bytes of SentencePiece."""
        pieces = () if self.byte_level else self.vocab.keys() & self.byte_names.keys()
        unknown = () if self.unknown_id is None else (self.unknown_id,)
        return {*self.special.values(), *(self.vocab[piece] for piece in pieces), *unknown}

    @property
    def unknown_id(self) -> int | None:
        """The id of the unknown token, or None."""
        model = self.data["model"]
        if self.family == "Unigram":
            return None if model["unk_id"] is None else int(model["unk_id"])
        return self.vocab.get(model["unk_token"]) if model["unk_token"] else None

    def raw(self, surface: str) -> bytes:
        """Return the bytes of a token, given its spelling."""
        return surface_bytes(surface, byte_level=self.byte_level)

    def text(self, surface: str) -> str:
        """Return a token as readable text, given its spelling."""
        return bytes_as_text(self.raw(surface))

    @cached_property
    def repeated(self) -> list[str]:
        """Texts that two tokens spell; bytes of SentencePiece do not count."""
        apart = {*self.special, *(() if self.byte_level else self.byte_names)}
        texts = Counter(self.raw(token) for token in self.vocab if token not in apart)
        return [bytes_as_text(raw) for raw, count in texts.items() if count > 1]

    def digits(self, *surfaces: str) -> tuple[int, ...]:
        """Return the largest numbers of English and of other digits in a row in some tokens."""
        text = b"\n".join(map(self.raw, surfaces)).decode("utf-8", "ignore")
        runs = (regex.findall(f"{digit}+", text) for digit in DIGITS)
        return tuple(max(map(len, found), default=0) for found in runs)

    @cached_property
    def most_digits(self) -> tuple[int, ...]:
        """The largest numbers of digits in a row in any token, as in `digits`.

        Other digits may be joined where English digits are.
        """
        english, other = self.digits(*(self.vocab.keys() - self.special))
        return english, max(english, other, 1)

    @property
    def byte_names(self) -> dict[str, int]:
        """The spelling of each single byte in this family, with the byte."""
        return BYTE_ALPHABET if self.byte_level else {f"<0x{b:02X}>": b for b in range(256)}

    def missing_bytes(self) -> list[str]:
        """Return the spellings of bytes without a token, if the family spells text by bytes."""
        by_bytes = self.byte_level or self.data["model"].get("byte_fallback")
        return [name for name in self.byte_names if by_bytes and name not in self.vocab]

    def with_pre_tokenizer(self, pre_tokenizer: dict[str, Any]) -> Self:
        """Return the spec with another pre-tokenizer."""
        return replace(self, data={**self.data, "pre_tokenizer": pre_tokenizer})

    def with_tokens(self, tokens: Mapping[int, NewToken]) -> Self:
        """Return the spec with new tokens at free ids; their merges come last, in their order."""
        model = self._model_copy()
        if self.family == "Unigram":
            vocab, scores = model["vocab"], unigram_scores(self, tokens.values())
            for index, token in sorted(tokens.items()):
                # At the end of the list this appends.
                vocab[index : index + 1] = [[token.surface, scores[token.surface]]]
        else:
            model["vocab"] |= {token.surface: index for index, token in tokens.items()}
            model["merges"] += [list(token.parts) for token in tokens.values() if token.parts]
        return replace(self, data={**self.data, "model": model})

    def appended(self, tokens: Sequence[NewToken]) -> Self:
        """Return the spec with new tokens after all ids."""
        return self.with_tokens(dict(enumerate(tokens, max(self.vocab.values()) + 1)))

    def without(self, surfaces: Iterable[str]) -> Self:
        """Return the spec without some tokens of a BPE vocabulary and without their merges."""
        gone, model = set(surfaces), self._model_copy()
        if self.family == "Unigram":  # a piece keeps its id until a new piece replaces it
            return self
        model["vocab"] = {token: i for token, i in model["vocab"].items() if token not in gone}
        model["merges"] = [m for m in model["merges"] if gone.isdisjoint([*m, "".join(m)])]
        return replace(self, data={**self.data, "model": model})

    def around(self, tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
        """Return a copy of a tokenizer with this spec; special tokens and chat template stay."""
        changed, parts = copy.copy(tokenizer), dict(vars(tokenizer))
        del parts["_tokenizer"]
        vars(changed).update({name: copy.copy(part) for name, part in parts.items()})
        changed._tokenizer = self.whole
        return changed

    def merges(self) -> Iterator[tuple[str, str]]:
        """Return the merges of a BPE model in order; none for Unigram."""
        return ((left, right) for left, right in self.data["model"].get("merges", ()))

    def _model_copy(self) -> dict[str, Any]:
        """Return the model with vocabulary and merges copied one level deep.

        Changes add or remove entries but never edit one, so the entries are shared.
        """
        return {key: copy.copy(value) for key, value in self.data["model"].items()}


@lru_cache(maxsize=2)
def _read(text: str) -> Spec:
    """Return the spec of a tokenizer.json; the last two are cached."""
    data = json.loads(text) | {"truncation": None, "padding": None}
    family, vocab = _family(data), data["model"]["vocab"]
    scores = dict(vocab)  # of Unigram; ids of BPE
    lowest = min(scores.values())
    for token in sorted(data["added_tokens"], key=lambda token: token["id"]):
        if family != "Unigram":
            vocab.setdefault(token["content"], token["id"])
        elif token["content"] not in scores and token["id"] == len(vocab):
            vocab.append([token["content"], lowest - NEVER])  # it is found before, or not at all
    return Spec(data, family)


def unigram_scores(spec: Spec, tokens: Collection[NewToken]) -> dict[str, float]:
    """Return scores with which new Unigram pieces are used whenever they save tokens.

    A piece gets the logarithm of its fraction of the text, like the pieces of the base. The score
    is at least slightly above the best segmentation of the piece, so that every piece is reachable.
    """
    scores: dict[str, float] = dict(spec.data["model"]["vocab"])
    unknown = min(scores.values()) - 10  # score of an unknown character in the library
    longest, total = max(map(len, scores)), sum(token.count for token in tokens) or 1
    new: dict[str, float] = {}
    for token in sorted(tokens, key=lambda token: len(token.surface)):
        surface = token.surface
        best = [0.0] + [-math.inf] * len(surface)
        for end in range(1, len(surface) + 1):
            best[end] = best[end - 1] + scores.get(surface[end - 1], unknown)
            for start in range(max(0, end - longest), end - 1):
                best[end] = max(best[end], best[start] + scores.get(surface[start:end], -math.inf))
        share = math.log(max(token.count, 1) / total)
        # Rounded, because JSON may change the last digit, which would decide between equal sums.
        new[surface] = scores[surface] = round(max(share, best[-1] + MARGIN), 6)
    return new


def without_prefix(part: Any) -> Any:
    """Return a normalizer or pre-tokenizer that adds no space before a text, nor takes one off.

    Example:
        >>> without_prefix({"type": "ByteLevel", "add_prefix_space": True})
        {'type': 'ByteLevel', 'add_prefix_space': False}
    """
    if part is None or part["type"] in ("Prepend", "Strip"):
        return None
    if parts := part.get("normalizers"):
        return part | {"normalizers": [kept for one in parts if (kept := without_prefix(one))]}
    if parts := part.get("pretokenizers"):  # only the first reads the beginning of a text
        return part | {"pretokenizers": [without_prefix(parts[0]), *parts[1:]]}
    never = {"prepend_scheme": "never", "add_prefix_space": False}
    return part | {name: value for name, value in never.items() if name in part}


def word_pattern(vocabulary: Iterable[str]) -> str:
    """Return a pattern of words as SentencePiece's own trainer would separate them.

    A word is a run of letters, digits, line ends or other characters, with an optional space before
    it. Joiners belong to the letters, and apostrophes between letters that are not Latin. A token
    of an apostrophe and letters (`'s`) is a word. Other characters are joined only if a token of
    the vocabulary joins them: digits with digits, line ends with line ends, a space with either, a
    full stop with a line end.

    Example:
        >>> pattern = word_pattern(["▁the", "▁1", "19"])
        >>> regex.findall(pattern, "▁the▁1989...\\n\\n")
        ['▁the', '▁1989', '...', '\\n', '\\n']
        >>> regex.findall(word_pattern(["▁the", "1", "9"]), "▁the▁19")
        ['▁the', '▁', '1', '9']
    """
    tokens = list(vocabulary)
    joined, apart = "\0".join(tokens), [token for token in tokens if CONTRACTION.fullmatch(token)]

    def run(characters: str) -> str:
        space = f"{SPACE}?" if regex.search(SPACE + characters, joined) else ""
        return space + characters + "+" * bool(regex.search(characters * 2, joined))

    letters, rest = rf"[\p{{L}}\p{{M}}][\p{{L}}\p{{M}}{JOINERS}]*", REST
    letters = rf"{SPACE}?{letters}(?:(?<![{BARE}])[{INNER}](?=[^{BARE}\P{{L}}]){letters})*"
    if regex.search(rf"{REST}[\r\n]|[\r\n]{REST}", joined):
        rest = REST.replace(r"\r\n", "")
    endings = [one_of(apart)] if apart else []
    return "|".join([*endings, letters, *map(run, (*DIGITS, rest, r"[\r\n]")), f"{SPACE}+"])


def one_of(texts: Iterable[str]) -> str:
    """Return a pattern that matches any of some texts, the longest first.

    The texts are grouped by first letter, so that not all of them are tried at every place.

    Example:
        >>> regex.findall(one_of(["<a>", "<ab>", "b"]), "<ab> b <a")
        ['<ab>', 'b']
    """
    by_first: dict[str, list[str]] = {}
    for text in sorted(texts, key=len, reverse=True):
        by_first.setdefault(text[0], []).append(regex.escape(text[1:]))
    parts = (regex.escape(first) + f"(?:{'|'.join(rest)})" for first, rest in by_first.items())
    return "|".join(parts) or "(?!)"  # which matches nothing


def _family(data: dict[str, Any]) -> Family:
    model, found = data["model"], data["model"]["type"]
    affixes = model.get("continuing_subword_prefix") or model.get("end_of_word_suffix")
    by_bytes = "ByteLevel" in json.dumps([data["pre_tokenizer"], data["decoder"]])
    complete = by_bytes or model.get("byte_fallback") or model.get("unk_token") in model["vocab"]
    if found == "BPE" and complete and not affixes:
        return "byte-level BPE" if by_bytes else "SentencePiece BPE"
    if found == "Unigram" and (complete or model["unk_id"] is not None):
        return "Unigram"
    if found in ("BPE", "Unigram"):
        found += " with word affixes" if affixes else " without bytes or an unknown token"
    known = "byte-level BPE (GPT-2, Llama 3), SentencePiece BPE (Llama 2, Gemma) or Unigram (XGLM)"
    raise VocabularyError(f"a {found} tokenizer cannot be extended: give a model with {known}")
