import re
from pathlib import Path
from typing import get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from langadapt_utils.embeddings.initialise import METHODS
from langadapt_utils.errors import RecipeError
from langadapt_utils.recipe import PROFILES, MethodName, Recipe, parse_override
from langadapt_utils.training.mixture import english_shares


@pytest.mark.parametrize("name", PROFILES)
def test_a_written_recipe_is_read_back_the_same(name: str, tmp_path: Path) -> None:
    recipe = Recipe.profile(name, language="th", overrides={"corpus.target": "a.txt,b.txt"})
    recipe.write(tmp_path / "recipe.yaml")
    again = Recipe.read(tmp_path / "recipe.yaml")
    assert again == recipe and again.digest == recipe.digest
    assert again.corpus.target == ["a.txt", "b.txt"]


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            {"mixture.english_shar": 0.1},
            "parameter 'mixture.english_shar' is unknown: did you mean mixture.english_share?",
        ),
        (
            {"mixture.english_share": 1.2},
            "mixture.english_share cannot be 1.2: it should be less than or equal to 1",
        ),
        (
            {"vocabulary.tokens": "many"},
            "vocabulary.tokens cannot be 'many': it should be a valid integer",
        ),
        (
            {"vocabulary.tokens": 2.5},
            "vocabulary.tokens cannot be 2.5: it should be a valid integer",
        ),
        (
            {"vocabulary.mode": "swap"},
            "vocabulary.mode cannot be 'swap': it should be 'extend' or 'replace'",
        ),
        ({"embeddings.method": "magic"}, "embeddings.method cannot be 'magic'"),
        (
            {"training.learning_rate": 0},
            "training.learning_rate cannot be 0: it should be greater than 0",
        ),
        ({"mixture.sweep": []}, "mixture.sweep cannot be []: it should have at least 1 item"),
        ({"training.learning_rate": "fast"}, "training.learning_rate cannot be 'fast'"),
        ({"language": "th"}, "parameter 'language' is unknown"),
    ],
)
def test_a_wrong_option_is_refused_in_one_sentence(
    overrides: dict[str, object], sentence: str
) -> None:
    with pytest.raises(RecipeError) as error:
        Recipe.profile("cpu", overrides=overrides)
    assert sentence in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("profile", "language"), [("cpuu", "hu"), ("cpu", "Hungarian"), ("cpu", "en"), ("cpu", "no ")]
)
def test_unknown_profile_or_language_is_refused(profile: str, language: str) -> None:
    with pytest.raises(RecipeError):
        Recipe.profile(profile, language=language)


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("language", ["th", "ko", "fi"])
def test_no_language_has_options_of_its_own(name: str, language: str) -> None:
    recipe, other = Recipe.profile(name, language=language), Recipe.profile(name, language="hu")
    assert list(recipe.differences(other)) == ["language"]


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_an_english_share_is_between_0_and_1(share: float) -> None:
    if 0 <= share <= 1:
        assert (
            Recipe.profile("cpu", overrides={"mixture.english_share": share}).mixture.english_share
            == share
        )
    else:
        with pytest.raises(RecipeError, match=r"mixture\.english_share"):
            Recipe.profile("cpu", overrides={"mixture.english_share": share})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("mixture.english_share=1", 1.0),
        ("training.learning_rate=1e-4", 1e-4),
        ("training.learning_rate=auto", "auto"),
        ("training.budget_tokens=1e6", 1_000_000),
        ("training.budget_tokens=2.5E6", 2_500_000),
        ("vocabulary.tokens=0500", 500),
        ("embeddings.untie=yes", True),
    ],
)
def test_numbers_may_be_written_as_people_write_them(text: str, value: float | str) -> None:
    name, parsed = parse_override(text)
    assert (
        dict(Recipe.profile("cpu", overrides={name: parsed}))[name.split(".")[0]].model_dump()[
            name.split(".")[1]
        ]
        == value
    )


BROKEN = [
    "mixture.english_share={a",
    "mixture.english_share=true",
    "training.checkpoint_minutes=1:30",
    "vocabulary.tokens=0.5",
    "training.budget_tokens=1.2.3e5",
    "embeddings.untie=perhaps",
]


def test_text_is_taken_as_it_stands_and_broken_values_are_refused() -> None:
    assert parse_override("base=123") == ("base", "123")
    assert parse_override("corpus.target={a") == ("corpus.target", "{a")
    for name, value in map(parse_override, BROKEN):
        with pytest.raises(RecipeError, match=f"{name} cannot be '{value}'"):
            Recipe.profile("cpu", overrides={name: value})


def test_an_override_without_a_value_is_refused() -> None:
    with pytest.raises(RecipeError, match="name=value"):
        parse_override("mixture.english_share")


def test_the_name_of_a_run_says_when_options_differ() -> None:
    plain, other = Recipe.profile("cpu"), Recipe.profile("cpu", overrides={"vocabulary.tokens": 7})
    assert plain.name == "hu-cpu" and other.name.startswith("hu-cpu-")
    assert plain.differences(other) == {"vocabulary.tokens": (plain.vocabulary.tokens, 7)}


def test_every_method_that_a_recipe_may_name_exists() -> None:
    for method in METHODS:
        assert (
            Recipe.profile("cpu", overrides={"embeddings.method": method}).embeddings.method
            == method
        )
    assert set(get_args(MethodName)) == set(METHODS)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("[1, 2]", "no line is an option"),
        ("a: [", "is not a recipe in YAML"),
        ("", "no line is an option"),
        ("language: hu\nsurprise: 1", "option 'surprise' is unknown"),
        ("language: hu\nvocabulary: {token: 1}", "did you mean vocabulary.tokens?"),
        ("language: hu\nvocabulary:\nvocabulary.tokens: 1", "is not a recipe in YAML"),
        ("language: hu\nprofile_name: [cpu]", "is not a recipe in YAML"),
        ("language: hu\nprofile_name: gpuu", "profile 'gpuu' is unknown: did you mean gpu?"),
        ("vocabulary.tokens: 5", "has no language: add it"),
        ("language: jpn", "language cannot be 'jpn': it should be ja, the usual code"),
        ("language: eng", "it should be a language other than English"),
        ("language: hu\ncorpus.others: ger:a.txt", "it should be de, the usual code"),
        ("language: hu\ntraining.learning_rate: .inf", "learning_rate cannot be '.inf'"),
        ("language: jp", "it should be a language code, such as ja or cs, not a country code"),
        ("language: hu\nvocabulary.tokens: true", "tokens cannot be 'true': it should be a valid"),
        ("language: hu\nmixture.english_share: yes", "it should be a valid number"),
    ],
)
def test_a_broken_recipe_file_is_refused(content: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(content)
    with pytest.raises(RecipeError, match=re.escape(sentence)) as error:
        Recipe.read(tmp_path / "recipe.yaml")
    assert "\n" not in str(error.value)


def test_a_short_recipe_file_has_the_other_options_of_its_profile(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(
        "profile_name: gpu\nlanguage: no\ntraining.batch_tokens: 2048\n"
        "training: {budget_tokens: 9999}\nvocabulary: {tokens: 70}"
    )
    values = {"training.batch_tokens": 2048, "training.budget_tokens": 9999}
    whole = Recipe.profile("gpu", language="no", overrides=values | {"vocabulary.tokens": 70})
    assert Recipe.read(path) == whole


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vocabulary.tokens", "0500"),
        ("training.budget_tokens", "2e6"),
        ("mixture.control", "no"),
        ("corpus.text_field", "no"),
        ("corpus.target", "1e5"),
        ("mixture.sweep", "0.0, 0.5"),
    ],
)
def test_a_file_reads_a_value_as_the_command_line_does(
    name: str, value: str, tmp_path: Path
) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(f"language: no\n{name}: {value}\n")
    override = dict([parse_override(f"{name}={value}")])
    assert Recipe.read(path) == Recipe.profile("cpu", language="no", overrides=override)


def test_the_schedule_early_has_english_in_a_tenth_of_the_run() -> None:
    values = {"mixture.english_share": 0.5, "mixture.schedule": "early"}
    recipe = Recipe.profile("cpu", overrides=values)
    assert english_shares(1_000, recipe.mixture).mean() == recipe.mixture.mean_english == 0.05


def test_the_vocabulary_options_become_arguments() -> None:
    recipe = Recipe.profile("cpu", overrides={"vocabulary.protect_english": 0.98})
    assert recipe.vocabulary.arguments()["protect"] == {"en": 0.98}
    plain = Recipe.profile("cpu", overrides={"vocabulary.protect_english": 0})
    assert plain.vocabulary.arguments()["protect"] == {}


def test_a_recipe_fits_a_screen_and_begins_with_what_matters(tmp_path: Path) -> None:
    recipe = Recipe.profile("cpu", language="th")
    recipe.write(tmp_path / "recipe.yaml")
    options = list(yaml.safe_load((tmp_path / "recipe.yaml").read_text(encoding="utf-8")))
    assert len([name for name in options if name != "profile_name"]) <= 55
    assert options[:4] == ["language", "base", "corpus.target", "training.budget_tokens"]
    assert Recipe.read(tmp_path / "recipe.yaml") == recipe


def test_a_name_with_a_comma_stands_in_quotes() -> None:
    values = dict([parse_override('corpus.target="a [1,2].txt",b.txt')])
    assert Recipe.profile("cpu", overrides=values).corpus.target == ["a [1,2].txt", "b.txt"]
    values = {"corpus.target": 'a.txt, "b, c.txt", d.txt'}
    names = Recipe.profile("cpu", overrides=values).corpus.target
    assert names == ["a.txt", "b, c.txt", "d.txt"]


@pytest.mark.parametrize(
    "value", ["a.txt,b.txt", "a.txt\nb.txt\n", '"a.txt", b.txt', "a.txt\n\nb.txt"]
)
def test_names_stand_between_commas_or_on_lines(value: str) -> None:
    """A shell gives one name per line, as does a block in YAML."""
    recipe = Recipe.profile("cpu", overrides={"corpus.target": value})
    assert recipe.corpus.target == ["a.txt", "b.txt"]


@pytest.mark.parametrize("name", ["corpus.max_megabytes", "training.learning_rate"])
def test_infinity_which_a_file_could_not_keep_is_refused(name: str) -> None:
    with pytest.raises(RecipeError, match=f"{name} cannot be inf"):
        Recipe.profile("cpu", overrides={name: float("inf")})
