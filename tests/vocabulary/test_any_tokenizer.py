"""Tokenizers as people have them: other classes, added tokens, digits, line ends, joiners."""

import json
import re
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import pytest
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from helpers.tiny import llama, saved, sentencepiece_bpe, train_tokenizer, unigram
from helpers.vocabularies import failed, run_checks_of_notebook_2, with_pattern
from langadapt_utils.corpus.corpus import Corpus
from langadapt_utils.embeddings.initialise import initialise_embeddings
from langadapt_utils.errors import CorpusError, ModelError, VocabularyError
from langadapt_utils.files import read_json, write_json
from langadapt_utils.models import load_base, load_tokenizer
from langadapt_utils.tokens import byte_lengths, token_ids
from langadapt_utils.vocabulary.audit import lint_tokenizer
from langadapt_utils.vocabulary.change import VocabularyChange, split_sentences
from langadapt_utils.vocabulary.extend import extend_vocabulary

TEXTS = ["The price in 1989: 1,250.50 forints!", "Árvíztűrő tükörfúrógép\n\n  és 12 ház", "ที่นี่ 300"]
CLASSES = ["PreTrainedTokenizerFast", "GPT2Tokenizer", "GPT2TokenizerFast", "LlamaTokenizer", ""]
CLASSES += ["LlamaTokenizerFast", "Qwen2Tokenizer", "GPTNeoXTokenizer", "CodeGenTokenizer"]
CLASSES += ["TokenizersBackend", "SomethingOfTheirOwn"]
KINDS = ["llama", "olmo2", "olmo3", "qwen2", "qwen3", "gpt_neox", "gpt2", "granite", "deepseek_v3"]
KINDS += ["mistral", "phi3", "smollm3", "gemma3_text", ""]


def passed(checks: object, claim: str) -> bool:
    return {check.claim: check.passed for check in checks}[claim]  # type: ignore[attr-defined]


def of_text(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("declared", CLASSES)
def test_the_ids_are_those_of_the_file(declared: str, kind: str, tmp_path: Path) -> None:
    pattern = r"\p{N}|[\p{L}\p{M}]+| ?[^\s\p{L}\p{M}\p{N}]+|\s"
    train_tokenizer(TEXTS * 20, size=400, pattern=pattern).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    config.pop("tokenizer_class", None)
    config |= {"tokenizer_class": declared} if declared else {}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    if kind:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    plain = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    ours = load_tokenizer(tmp_path)
    for text in TEXTS:
        assert of_text(ours, text) == plain.encode(text, add_special_tokens=False).ids
        assert ours.decode(of_text(ours, text)) == text


def test_truncation_and_padding_of_the_file_are_switched_off(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(TEXTS * 20, size=400)
    tokenizer.save_pretrained(tmp_path)
    backend = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    backend.enable_truncation(4)
    backend.enable_padding(length=9)
    backend.save(str(tmp_path / "tokenizer.json"))
    read = load_tokenizer(tmp_path)
    for text in [*TEXTS, "x"]:
        ids = read.backend_tokenizer.encode(text, add_special_tokens=False).ids
        assert ids == of_text(tokenizer, text)


def test_what_autotokenizer_reads_otherwise_is_said(tmp_path: Path) -> None:
    tokenizer = with_pattern("llama3")
    saved(llama(len(tokenizer)), tokenizer, tmp_path)
    claim = "`AutoTokenizer` gives the ids of tokenizer.json"
    assert passed(lint_tokenizer(load_tokenizer(tmp_path), TEXTS), claim)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "qwen2"}))
    thai = extend_vocabulary(load_tokenizer(tmp_path), ["ที่นี่มีที่นั่ง"] * 50, tokens=14)
    audited = {check.claim: check.detail for check in thai.audit}
    assert "Qwen2" in audited[f"{claim}, or the model card names another class"]
    thai.save(tmp_path)
    found = lint_tokenizer(load_tokenizer(tmp_path), ["ที่นี่มีที่นั่ง"])
    assert not passed(found, claim) and "Qwen2" in {c.claim: c.detail for c in found}[claim]


@pytest.mark.parametrize("first", [0, 1_000])
@pytest.mark.parametrize("stream", [False, True])
def test_marks_are_found_wherever_they_stand(first: int, stream: bool) -> None:
    texts = [*["only Latin letters, and many of them " * 9] * first, *["ที่นี่ ศึกษาภาษา"] * 900]
    given: object = iter(texts) if stream else texts
    assert isinstance(given, Iterator) == stream
    change = extend_vocabulary(with_pattern("llama3"), given, tokens=5)  # type: ignore[arg-type]
    assert change.pattern_repair and all(check.passed for check in change.audit)


def test_joiners_ride_with_the_marks_before_them() -> None:
    """A virama and a joiner, as in Hindi: the old pattern cut before the virama alone."""
    hindi = ["शिक्\u200dषा और क्\u200dष का अध्ययन किया"] * 200
    change = extend_vocabulary(with_pattern("llama3"), hindi, tokens=10)
    assert change.pattern_repair == r"\p{M}\p{Join_Control}"
    assert all(check.passed for check in change.audit)


def test_english_with_line_ends_keeps_its_ids() -> None:
    english = ["The first line.\nThe second line.\n\nThe end."] * 40
    base = sentencepiece_bpe(["The first line. The second line. The end."] * 40, size=320)
    target = ["Az első sor.\nA második sor.\n\nVége.\n"] * 200
    change = extend_vocabulary(base, target, tokens=20, others={"en": english}, protect={"en": 1.0})
    for text in english[:1]:
        assert of_text(base, text) == of_text(change.tokenizer, text)
    assert change.effects["en"].kept == 1.0
    assert sum(map(len, split_sentences(english, 10**6))) == sum(map(len, english))


def test_what_the_base_never_joins_is_not_joined() -> None:
    base = sentencepiece_bpe(["a house and a river"] * 40, size=300)
    assert not any(len(token) > 1 and any(c.isdigit() for c in token) for token in merged(base))
    target = ["Az 1989 és 1995 közötti 19 év.\n\nÚj sor."] * 200
    change = extend_vocabulary(base, target, tokens=30)
    with_digits = [token for token in change.added.values() if any(map(str.isdigit, token))]
    assert all(len(token) == 1 for token in with_digits), with_digits
    assert not [token for token in change.added.values() if "\n" in token and len(token) > 1]


def merged(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    return [token for token in tokenizer.get_vocab() if not token.startswith("<")]


def test_a_base_with_added_tokens_is_extended_again(corpora: dict[str, Corpus]) -> None:
    base = train_tokenizer(list(corpora["hu"].train["en"]["text"]), size=400)
    base.add_tokens(["macska", "szőnyeg"])
    texts = ["A macska a szőnyegen ül, a macskák szőnyegei. Kutya, kutyák."] * 200
    change = extend_vocabulary(base, texts, tokens=12)
    assert all(check.passed for check in change.audit), change.audit
    assert not any("macska" in change.text(new) for new in change.added)
    assert len(of_text(change.tokenizer, texts[0])) < len(of_text(base, texts[0]))


def test_one_token_more_than_rows_gets_a_row(tmp_path: Path) -> None:
    """Gemma 3 has an image token beyond its matrix."""
    tokenizer = train_tokenizer(TEXTS * 20, size=400)
    rows = len(tokenizer)
    tokenizer.add_special_tokens({"extra_special_tokens": ["<image_soft_token>"]})
    model = llama(rows)
    folder = saved(model, tokenizer, tmp_path).folder
    base = load_base(str(folder))
    checks = lint_tokenizer(base.tokenizer, TEXTS)
    assert not passed(checks, "every token has an embedding in the model")
    change = extend_vocabulary(base.tokenizer, TEXTS * 50, tokens=5)
    grown = initialise_embeddings(base.model, change).get_input_embeddings().weight
    assert len(grown) == rows + 1 + 5
    assert grown[rows].allclose(model.get_input_embeddings().weight.mean(dim=0), atol=1e-5)


def test_lint_says_what_a_reader_would_not_expect() -> None:
    tokenizer = with_pattern("gpt2")
    checks = lint_tokenizer(tokenizer, ["Uzbek to'siq, п'ять <|endoftext|> written"])
    details = {check.claim: check.detail for check in checks if not check.passed}
    assert "to'siq" in details["words with an apostrophe inside are not split"]
    assert "<|endoftext|>" in details["no text contains a special token"]
    found = lint_tokenizer(tokenizer, ["մ՚եր ի՞նչ ո՛չ"])  # signs of Armenian, inside words
    details = {check.claim: check.detail for check in found}
    assert details["words with an apostrophe inside are not split"].startswith("3 of 3")
    spelled = unigram(["the old bridge"] * 50, size=40)
    assert not passed(lint_tokenizer(spelled, ["ภาษาไทย"]), "every character has a token")


def test_many_special_tokens_cost_little() -> None:
    """The audit asks for the added tokens a few times, however many there are."""
    asked = 0

    class Counting(PreTrainedTokenizerFast):
        @property
        def added_tokens_decoder(self) -> dict:
            nonlocal asked
            asked += 1
            return super().added_tokens_decoder

    tokenizer = train_tokenizer(TEXTS * 20, size=400)
    tokenizer.add_tokens([f"<unused{number}>" for number in range(500)], special_tokens=True)
    names = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    counting = Counting(tokenizer_object=tokenizer.backend_tokenizer, **names)
    asked = 0
    change = extend_vocabulary(counting, TEXTS * 50, tokens=5)
    assert isinstance(change, VocabularyChange) and asked < 50
    asked = 0
    assert byte_lengths(counting).sum() and asked < 50


def test_digits_of_a_pre_tokenizer_stay_apart() -> None:
    base = train_tokenizer(["some text"] * 9, size=270)
    digits = pre_tokenizers.Digits(individual_digits=True)
    backend = base.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence([digits, backend.pre_tokenizer])
    change = extend_vocabulary(base, ["Az 1989 és 1995 közötti 19 év."] * 99, tokens=10)
    assert not [n for n in change.added if sum(map(str.isdigit, change.text(n))) > 1]


@pytest.mark.parametrize("text", ["Tie\u0302\u0301ng Vie\u0323\u0302t", "হ\u09df", "ﬁnom ①"])
def test_what_the_base_normalises_is_counted_and_stops_nothing(text: str) -> None:
    base = train_tokenizer([*TEXTS, "some more text"] * 20, size=400)
    base.backend_tokenizer.normalizer = normalizers.NFKC()
    lint = {check.claim: check for check in lint_tokenizer(base, [text, "plain"])}
    assert "1 of 2 do not" in lint["decoded tokens give the text"].detail
    change = extend_vocabulary(base, [text] * 50, tokens=3)
    assert all(check.passed for check in change.audit), change.audit
    given_back = [t.decode(of_text(t, text)) for t in (base, change.tokenizer)]
    assert given_back[0] == given_back[1] != text
    run_checks_of_notebook_2(base, change, text)


def changed_file(tokenizer: PreTrainedTokenizerFast, **parts: object) -> PreTrainedTokenizerFast:
    """The same tokenizer with other parts or settings of the model in its tokenizer.json."""
    data = json.loads(tokenizer.backend_tokenizer.to_str())
    settings = {name: parts.pop(name) for name in [*parts] if name in data["model"]}
    data |= {**parts, "model": data["model"] | settings}
    names = {**tokenizer.special_tokens_map}
    names.pop("extra_special_tokens", None)
    backend = Tokenizer.from_str(json.dumps(data))
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


PREFIXED = {
    "prepend": sentencepiece_bpe,
    "metaspace": lambda texts, size: sentencepiece_bpe(texts, size, metaspace=True),
    "byte-level": lambda texts, size: changed_file(
        train_tokenizer(texts, size - 22),
        pre_tokenizer=PREFIX_SPACE,
        decoder={"type": "ByteLevel"} | BYTES,
    ),
}
BYTES = {"add_prefix_space": True, "trim_offsets": True, "use_regex": True}
PREFIX_SPACE = {"type": "ByteLevel"} | BYTES


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("kind", "added"),
    [*product(PREFIXED, ["", "zzz"]), ("metaspace", "Cam"), ("byte-level", "Cam")],
)
def test_lines_keep_their_ids_under_a_space_before_the_text(
    kind: str, added: str, end: str
) -> None:
    """A line inside a text has no such space before it: its first letter is a token of its own."""
    words = [f"C{vowel}{last}" for vowel in "aeiou" for last in "bdpm"]
    base = PREFIXED[kind]([" ".join(words)] * 50, 285)
    assert "C" in base.tokenize(f"Cab{end}Cab")[2:]
    base.add_tokens([added] * bool(added))
    english = [f"Cob.{end}Cam.{end}Cam."] * 20
    target = [end.join(["bob.", "Cab.", "Cad.", "Cap."])] * 90
    change = extend_vocabulary(base, target, tokens=3, others={"en": english}, protect={"en": 1.0})
    assert change.effects["en"].kept == 1.0
    assert token_ids(base, english) == token_ids(change.tokenizer, english)


def test_a_unigram_model_reads_special_tokens_in_running_text_as_text(tmp_path: Path) -> None:
    unigram(["the price </s> of <pad> a house"] * 40, size=60).save_pretrained(tmp_path)
    base = load_tokenizer(tmp_path)
    special = {base.eos_token_id, base.pad_token_id}
    texts = ["the </s> price <pad>500</s>", "<unk></s>"]
    for tokenizer in (base, extend_vocabulary(base, texts * 50, tokens=5).tokenizer):
        assert not special.intersection(*token_ids(tokenizer, texts[:1]))
        assert special < set(tokenizer(texts[0])["input_ids"])
        assert token_ids(tokenizer, ["a house"]) == [of_text(tokenizer, "a house")]


def test_measuring_ignores_truncation_padding_and_dropout(tmp_path: Path) -> None:
    base = train_tokenizer(TEXTS * 20, size=400)
    whole = token_ids(base, TEXTS)
    backend = base.backend_tokenizer
    backend.enable_truncation(4, stride=1, direction="left")
    backend.enable_padding(length=9, direction="left")
    before = backend.truncation, backend.padding
    assert token_ids(base, TEXTS) == whole and (backend.truncation, backend.padding) == before
    grown = extend_vocabulary(base, TEXTS * 50, tokens=5).tokenizer.backend_tokenizer
    assert (grown.truncation, grown.padding) == (None, None)
    changed_file(base, dropout=0.5).save_pretrained(tmp_path)
    assert token_ids(load_tokenizer(tmp_path), TEXTS) == whole


@pytest.mark.parametrize(
    ("tokenizer", "why"),
    [
        (lambda: changed_file(with_pattern("gpt2"), end_of_word_suffix="</w>"), "affixes"),
        (
            lambda: changed_file(
                sentencepiece_bpe(["the cat"]), byte_fallback=False, unk_token=None
            ),
            "a BPE without bytes or an unknown token",
        ),
        (
            lambda: changed_file(unigram(["the cat"] * 9, size=30), unk_id=None),
            "a Unigram without bytes or an unknown token",
        ),
    ],
)
def test_tokenizers_that_lose_text_are_refused_before_any_work(
    tokenizer: Callable[[], PreTrainedTokenizerFast], why: str
) -> None:
    with pytest.raises(VocabularyError, match=why):
        lint_tokenizer(tokenizer(), ["the cat"])


@pytest.mark.parametrize("longest", [1, 3])
@pytest.mark.parametrize("build", [train_tokenizer, sentencepiece_bpe, unigram])
@pytest.mark.parametrize("numbers", ["1989 1995", "١٩٨٩ ١٩٩٥", "१९८९ १९९५"])
def test_no_token_joins_more_digits_than_any_of_the_base(
    longest: int, build: Callable[..., PreTrainedTokenizerFast], numbers: str
) -> None:
    base = build([f"a house of {'195'[:longest]} and 1 river"] * 60, 300)
    change = extend_vocabulary(base, [f"ház {numbers} és híd"] * 90, tokens=6)
    runs = [len(run) for new in change.added for run in re.findall(r"\d+", change.text(new))]
    assert max(runs, default=0) <= longest


def test_digits_of_another_script_do_not_let_english_digits_join() -> None:
    """Gemma 3 has tokens of Bengali years, and writes English ones digit by digit."""
    base = sentencepiece_bpe(["১৯৮৯ ১৯৯৫ a house of 1 and 9"] * 60, size=330)
    assert any(token.endswith("১৯") for token in base.get_vocab())
    change = extend_vocabulary(base, ["Az 1989 és 1995 közötti 1989."] * 90, tokens=12)
    numbers = [token for token in change.added.values() if any(map(str.isdigit, token))]
    assert all(len(token) == 1 for token in numbers), numbers


def test_no_token_is_learned_that_reads_like_a_special_one() -> None:
    base = train_tokenizer(["some text"] * 20, size=300)
    base.add_special_tokens({"extra_special_tokens": ["PAD"]})
    change = extend_vocabulary(base, ["egy PAD és két PAD meg PADLÓ"] * 60, tokens=9)
    assert all(check.passed for check in change.audit), change.audit
    assert "PAD" not in {change.text(new).strip() for new in change.added}


def test_the_unknown_token_is_that_of_the_file(tmp_path: Path) -> None:
    """Whether the configuration names none or another."""
    for build in (sentencepiece_bpe, unigram):
        build(["the old bridge"] * 50, size=330).save_pretrained(tmp_path)
        path = tmp_path / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"unk_token": "</s>"}))
        assert load_tokenizer(tmp_path).unk_token == "<unk>"
        path.unlink()
        assert load_tokenizer(tmp_path).unk_token == "<unk>"
    fused = changed_file(sentencepiece_bpe(["the old bridge"]), byte_fallback=False, fuse_unk=True)
    thai = extend_vocabulary(fused, ["ภาษาไทย ที่นี่"] * 50, tokens=9)
    assert all(check.passed for check in thai.audit), thai.audit


def test_a_byte_level_base_without_a_pre_tokenizer_is_extended() -> None:
    normalizer, decoder = {"type": "ByteLevel"}, {"type": "ByteLevel"} | BYTES
    parts = {"normalizer": normalizer, "pre_tokenizer": None, "decoder": decoder}
    base = changed_file(train_tokenizer(["some English text"] * 9, 300), **parts)
    change = extend_vocabulary(base, TEXTS * 50, tokens=9)
    assert not [check for check in change.audit if not check.passed]
    assert change.tokenizer.decode(of_text(change.tokenizer, TEXTS[1])) == TEXTS[1]


def test_a_base_is_refused_when_its_tokenizer_is_loaded(tmp_path: Path) -> None:
    """And not by the stages that need its start token or its embeddings."""
    tokenizer = train_tokenizer(TEXTS * 20, size=400)
    few = saved(llama(len(tokenizer) - 9), tokenizer, tmp_path / "few")
    with pytest.raises(ModelError, match=r"but the model has \d+ embeddings"):
        _ = few.tokenizer
    endless = saved(llama(len(tokenizer)), tokenizer, tmp_path / "endless").folder
    (endless / "tokenizer_config.json").unlink()
    Tokenizer.from_file(str(endless / "tokenizer.json")).save(str(endless / "tokenizer.json"))
    text = (endless / "tokenizer.json").read_text().replace("<|endoftext|>", "<|stop|>")
    (endless / "tokenizer.json").write_text(text)
    with pytest.raises(CorpusError, match="name one as bos_token"):
        _ = load_base(str(endless)).tokenizer


def test_added_tokens_that_are_not_special_are_no_finding() -> None:
    base = train_tokenizer(TEXTS * 20, size=400)
    base.add_tokens(["  ", "macska"])
    assert passed(lint_tokenizer(base, ["a  macska"]), "no text contains a special token")


def test_a_unigram_base_keeps_as_many_english_sentences_as_it_has_to(
    corpora: dict[str, Corpus],
) -> None:
    """The scores of new pieces rise when others are dropped, and may then change more sentences."""
    texts = {code: list(corpora["hu"].train[code]["text"]) for code in ("hu", "en")}
    base = unigram(texts["en"], size=1_500)
    others, protect = {"en": texts["en"]}, {"en": 0.99}
    change = extend_vocabulary(base, texts["hu"], tokens=200, others=others, protect=protect)
    assert change.effects["en"].kept >= 0.99


def test_an_unknown_token_without_an_id_is_none(corpora: dict[str, Corpus]) -> None:
    data = json.loads(
        sentencepiece_bpe(
            list(corpora["hu"].train["en"]["text"])[:50], 400
        ).backend_tokenizer.to_str()
    )
    data["model"] |= {"unk_token": "<nope>", "byte_fallback": False}
    own = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(data)))
    with pytest.raises(VocabularyError, match="cannot"):
        lint_tokenizer(own, ["árvíz"])


def test_a_setting_to_split_special_tokens_changes_no_ids(
    corpora: dict[str, Corpus], tmp_path: Path
) -> None:
    sentencepiece_bpe(list(corpora["hu"].train["en"]["text"]), 600).save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    write_json(path, read_json(path) | {"split_special_tokens": True})
    texts = [*list(corpora["hu"].train["hu"]["text"])[:200], "Régi ár: <s>500</s> 400 Ft"]
    assert not failed(extend_vocabulary(load_tokenizer(tmp_path), texts, tokens=10))
