"""Plan a run: its options, memory and time, before it starts.

No weights are loaded: the plan uses the configuration of the model and up to 20 MB of the text. The
docstring of each estimate has its formula; `benchmarks/plan.py` compares them with measurements.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from .corpus.corpus import Corpus, load_corpus
from .corpus.inspection import BEGINNING, share_in_language, share_in_script
from .display.html import render
from .evaluation.evaluate import documents_to_read
from .fertility import measure_fertility
from .hardware import ALONE, Machine, machine_named, native_precision
from .models import EXPERTS, FACTORS, Base, building, check_model, fetch_model, is_tied
from .recipe import Recipe
from .tokens import token_ids
from .training.optimizer import LINEAR, embedding_matrices, learning_rate
from .training.train import check_length
from .vocabulary.sizes import RARELY, token_numbers

NUMBERS = (10, 20, 50, 100, 200, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000)  # of new tokens
OFTEN = 0.9  # fraction of the new tokens that training must show often enough
RANK = 64  # of adapters, if the full model does not fit
ROOM = 0.9  # fraction of a device's memory that may be used
# Below this parity a base already reads the language, and its learning rate is multiplied by
# CAREFUL: Gemma 3 270M in Hungarian (parity 1.6) loses 25 % at the full rate and 10 % at a fifth of
# it (data/reference/rates-hu-gemma-40k.json).
READS_WELL, CAREFUL = 1.7, 0.2
LIBRARIES = 0.7e9  # bytes
# Bytes that training moves: per layer and dimension, entry of the logits, parameter and step.
LAYER_BYTES, LOGIT_BYTES, OPTIMIZER_BYTES = 450, 600, 20


@dataclass(frozen=True)
class Shape:
    """The size of a model, from its configuration."""

    parameters: int
    multiplied: int  # parameters that a token is multiplied with
    embeddings: int  # parameters in matrices with one row per token
    linear: int  # sum of inputs and outputs of the body's linear layers; times the rank: adapters
    layers: int
    width: int
    vocabulary: int
    weight_bytes: int = 2  # of a weight in the base
    plain_head: bool = True  # the logits are a matrix product, as the fused loss needs
    tied: bool = True  # the LM head has no weights of its own

    @classmethod
    def of(cls, base: str, accept_terms: str = "") -> "Shape":
        """Return the shape of a base model, without downloading weights from the hub."""
        folder = fetch_model(base, accept_terms, weights=False)
        check_model(folder, weights=False)
        with torch.device("meta"), building(folder):
            config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
            model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        matrices = {id(matrix): matrix for matrix in embedding_matrices(model)}
        body = (m.weight for m in model.modules() if type(m).__name__ in LINEAR)
        inner = [sum(weight.shape) for weight in body if id(weight) not in matrices]
        embeddings, text = sum(m.numel() for m in matrices.values()), config.get_text_config()
        size = text.num_hidden_layers, text.hidden_size, text.vocab_size
        weight = 4 if (text.dtype or config.dtype) in (None, torch.float32) else 2
        kind = weight, _has_plain_head(model), is_tied(model)
        return cls(model.num_parameters(), _multiplied(model), embeddings, sum(inner), *size, *kind)

    def with_tokens(self, tokens: int, *, untie: bool = False) -> "Shape":
        """Return the shape after adding new tokens, and with an LM head of its own (`untie`)."""
        rows, more = self.vocabulary + tokens, self.embeddings // self.vocabulary * tokens
        more += rows * self.width if untie and self.tied else 0
        grown: dict[str, Any] = {"parameters": self.parameters + more, "vocabulary": rows}
        grown |= {"multiplied": self.multiplied + tokens * self.width}
        grown |= {"tied": self.tied and not untie}
        return replace(self, embeddings=self.embeddings + more, **grown)


def _has_plain_head(model: PreTrainedModel) -> bool:
    """Return whether neither bias, scale nor cap is applied to the logits."""
    config = model.config.get_text_config()
    factors = [getattr(config, name, None) for name in FACTORS]
    neutral = None, 1, config.hidden_size  # MiniCPM divides by a ratio of widths
    biased = getattr(model.get_output_embeddings(), "bias", None) is not None
    return not biased and all(factor in neutral for factor in factors)


def _multiplied(model: PreTrainedModel) -> int:
    """Return how many parameters a token is multiplied with.

    A token uses some of the experts of a mixture, and looks up its embeddings.
    """
    config, head = model.config.get_text_config(), model.get_output_embeddings()
    used = np.mean(next((n for name in EXPERTS if (n := getattr(config, name, 0))), 0))
    tables = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    tables -= {id(getattr(head, "weight", None))}  # it may be tied
    total = 0.0
    for name, weight in model.named_parameters():
        some = used and ".experts." in name and weight.ndim == 3
        if id(weight) not in tables:
            total += weight.numel() * (used / len(weight) if some else 1)
    return int(total)


def training_bytes(shape: Shape, recipe: Recipe, machine: Machine) -> float:
    """Return the memory of training, in bytes per device.

    A trained parameter takes 18 bytes: weight, gradient and two moments in float32, and the weight
    in bfloat16. A frozen parameter (the body under adapters) takes 2, or 4 in float32. Several GPUs
    share the weights (FSDP 2), except under adapters. A token takes 64 bytes per layer and
    dimension (counted: 53 to 80 in Llama, 97 in the narrow Gemma 3; Korthikanti et al. 2022, arXiv
    2205.05198, have 34, all in bfloat16). With gradient checkpointing it takes 4, plus 64 for one
    layer. Logits take 16 bytes per entry, or none with the fused loss on GPUs, which needs a plain
    LM head. Libraries take 0.7 GB.
    """
    training, learned = recipe.training, _learned(shape, recipe)
    frozen = 4 if "float32" in (training.precision, machine.precision) else shape.weight_bytes
    adapted = 18 * learned + frozen * (shape.parameters - shape.embeddings)
    weights = adapted if training.lora_rank else 18 * learned / max(1, machine.gpus)
    one = 64 * shape.width
    kept = 4 * shape.width * shape.layers + one if training.gradient_checkpointing else 0
    logits = 16 * shape.vocabulary * _has_logits(shape, recipe, machine)
    tokens = max(training.micro_batch_tokens, recipe.mixture.sequence_length)
    return LIBRARIES + weights + tokens * ((kept or one * shape.layers) + logits)


def _learned(shape: Shape, recipe: Recipe) -> int:
    """Return the number of trained parameters: all, or embeddings and adapters."""
    rank = recipe.training.lora_rank
    return shape.embeddings + rank * shape.linear if rank else shape.parameters


def _has_logits(shape: Shape, recipe: Recipe, machine: Machine) -> bool:
    return not (machine.gpus and recipe.training.fused_loss and shape.plain_head)


def training_seconds(shape: Shape, recipe: Recipe, machine: Machine, tokens: float) -> float:
    """Return the seconds of training on a number of tokens, on one device.

    Matrix products and memory take turns, as in the roofline model (Williams et al. 2009). A token
    takes 6 operations per parameter (Kaplan et al. 2020, arXiv 2001.08361), 4 per frozen parameter.
    Per layer and dimension, 450 bytes are read or written, and 600 per entry of its logits. With
    gradient checkpointing, layers are computed four times instead of three. The optimizer moves 20
    bytes per trained parameter and training step. The numbers of bytes were fitted to three models
    on two cores in bfloat16 (`benchmarks/plan.py`); they were not tried on GPUs.
    """
    training, again = recipe.training, 4 / 3 if recipe.training.gradient_checkpointing else 1
    learned = _learned(shape, recipe)
    multiplied = shape.multiplied * (6 * again - 2 * (1 - learned / shape.parameters))
    moved = again * LAYER_BYTES * shape.width * shape.layers
    moved += LOGIT_BYTES * shape.vocabulary * _has_logits(shape, recipe, machine)
    moved += OPTIMIZER_BYTES * learned / max(training.batch_tokens, 1)
    return tokens * (multiplied / machine.speed + moved / machine.bandwidth)


class Lengths(NamedTuple):
    """The number of held-out documents and their mean tokens. Defaults: built-in Hungarian text."""

    base: float = 680.0  # target language, base tokenizer
    adapted: float = 450.0
    english: float = 190.0
    documents: int = 40  # in the target language
    english_documents: int = 80


def stage_seconds(
    shape: Shape, recipe: Recipe, machine: Machine, lengths: Lengths | None = None
) -> dict[str, float]:
    """Return the seconds per stage.

    Training takes `training_seconds`. Evaluation takes a third of the operations and half of the
    bytes per token, without the optimizer; an item takes as long as a third of a document. Each
    notebook takes some more seconds to start, to learn tokens and to draw. Bits that an earlier
    stage measured are not measured again.

    Args:
        shape: of the adapted model.
        recipe: of the run.
        machine: that runs it.
        lengths: of the held-out documents; by default typical ones.
    """
    asked, probe = recipe.evaluation, recipe.embeddings.probe_steps
    lengths = lengths or Lengths(documents=asked.documents, english_documents=2 * asked.documents)
    few = min(asked.compared, lengths.documents, lengths.english_documents)
    methods, sweeps = len(recipe.embeddings.compare), len(recipe.mixture.sweep)
    points = sum(share < 1 for share in asked.interpolation_points)
    trained = recipe.trained_tokens + sweeps * recipe.mixture.sweep_tokens
    learned = {"03_embeddings": methods * probe * recipe.probe_batch_tokens, "04_training": trained}
    base, adapted = lengths.base + lengths.english, lengths.adapted + lengths.english
    english, items = lengths.english_documents * lengths.english, asked.items / 3
    read = {
        "03_embeddings": few * (base + methods * (2 if probe else 1) * adapted),
        "04_training": few * (1 + sweeps) * adapted,
        # English documents are read by the control run, too.
        "05_evaluation": lengths.documents * (lengths.base + lengths.adapted)
        + (2 + recipe.mixture.control) * english
        + items * (base + adapted)
        + few * (points * adapted - base),
    }
    moved = (LAYER_BYTES * shape.width * shape.layers + LOGIT_BYTES * shape.vocabulary) / 2
    a_token = 2 * shape.multiplied / machine.speed + moved / machine.bandwidth

    def seconds(stage: str) -> float:
        training = training_seconds(shape, recipe, machine, learned.get(stage, 0))
        shared = max(1, machine.gpus) if stage == "04_training" else 1
        return float(ALONE[stage]) + a_token * read.get(stage, 0) + training / shared

    return {stage: seconds(stage) for stage in ALONE}


@dataclass(frozen=True)
class Plan:
    """The recipe of a run with its estimated memory and time.

    Attributes:
        recipe: with the options that the plan chose.
        machine: that the plan is for.
        shape: of the adapted model.
        cost: the language under the base tokenizer: `parity` (NaN without translations),
            `tokens_per_word`, `tokens_per_byte`; `in_script`, `in_language` as in `inspect_text`.
        sizes: the table of `token_numbers`, and `megabytes` of embeddings in bfloat16.
        lengths: of the held-out documents.
        passes: over the training text, by language.
    """

    recipe: Recipe
    machine: Machine
    shape: Shape
    cost: Mapping[str, float]
    sizes: pd.DataFrame
    lengths: Lengths
    passes: Mapping[str, float]

    @property
    def memory(self) -> float:
        """Memory of training, in bytes per device."""
        return training_bytes(self.shape, self.recipe, self.machine)

    @cached_property
    def seconds(self) -> dict[str, float]:
        """Seconds per stage."""
        return stage_seconds(self.shape, self.recipe, self.machine, self.lengths)

    def __str__(self) -> str:
        row = self.sizes[self.sizes.new_tokens == self.recipe.vocabulary.tokens].iloc[0]
        bounds = {"room": ROOM, "reads_well": READS_WELL, "often": OFTEN, "rarely": RARELY}
        bounds["enough"] = enough_tokens(self.sizes)
        return str(render("planning.txt.j2", plan=self, row=row, **bounds))


def plan(recipe: Recipe, *, gpu: str = "", gpus: int = 1) -> Plan:
    """Plan a run: choose options that fit its text, base and machine, and estimate memory and time.

    The plan chooses the number of new tokens (unless the recipe has another one than its profile),
    the learning rate, the micro-batch, gradient checkpointing and adapters. All other options stay
    as in the recipe.

    Args:
        recipe: base, language, text, budget.
        gpu: a GPU in `hardware.GPUS`; empty for this machine.
        gpus: number of GPUs.

    Raises:
        LangadaptError: the base or text cannot be read, the sequences are too long for the base, or
            the GPU is unknown.
    """
    shape = Shape.of(recipe.base, recipe.accept_terms)
    machine = machine_named(gpu, gpus, native_precision(recipe.training.precision))
    base = Base(fetch_model(recipe.base, recipe.accept_terms, weights=False))
    check_length(base, recipe.mixture.sequence_length)
    corpus = load_corpus(recipe.corpus, recipe.language)
    # The number that was asked for, if it is not that of the profile.
    own = {recipe.vocabulary.tokens} - {recipe.plain.vocabulary.tokens}
    sizes = token_numbers(base.tokenizer, corpus, recipe, sorted({*NUMBERS, *own}))
    tables = (recipe.vocabulary.mode == "extend") * (1 + (recipe.embeddings.untie and shape.tied))
    sizes["megabytes"] = sizes.new_tokens * (2e-6 * tables * shape.embeddings / shape.vocabulary)
    sizes.attrs["asked"] = max(own, default=0)
    numbers = sizes.new_tokens
    tokens = int(numbers[numbers <= max(own)].max()) if own else enough_tokens(sizes)
    texts, parallel = corpus.measuring_texts()
    report = measure_fertility({"base": base.tokenizer}, texts, parallel=parallel)
    columns = ("parity", "tokens_per_word", "tokens_per_byte")
    cost = {name: report.value("base", recipe.language, name) for name in columns}
    read = [text[:BEGINNING] for text in texts[recipe.language]]
    cost["in_script"] = share_in_script("".join(read), recipe.language)
    cost["in_language"] = share_in_language(read, recipe.language)
    rate = learning_rate(asked := recipe.training.learning_rate, shape.parameters)
    if asked == "auto":
        rate = float(f"{rate * (CAREFUL if cost['parity'] < READS_WELL else 1):.1e}")
    chosen = {"vocabulary.tokens": tokens, "training.learning_rate": rate}
    more = tokens if recipe.vocabulary.mode == "extend" else 0
    grown = shape.with_tokens(more, untie=recipe.embeddings.untie)
    fitted = _fitted(recipe.with_options(chosen), grown, machine)
    row = sizes[sizes.new_tokens == tokens].iloc[0]
    size = sum(len(text.encode()) for text in corpus.train["en"]["text"])
    english = size * report.value("base", "en", "tokens_per_byte")
    passes = {"en": recipe.training.budget_tokens * recipe.mixture.mean_english / english}
    passes[recipe.language] = float(row.passes)
    lengths = _lengths(base, corpus, recipe, row.saved)
    return Plan(fitted, machine, grown, cost, sizes, lengths, passes)


def _lengths(base: Base, corpus: Corpus, recipe: Recipe, saved: float) -> Lengths:
    read = documents_to_read(corpus, recipe.evaluation)
    texts = ([row["text"] for row in read[code]] for code in (recipe.language, "en"))
    own, english = (fmean(map(len, token_ids(base.tokenizer, part))) for part in texts)
    return Lengths(own, own * (1 - saved), english, len(read[recipe.language]), len(read["en"]))


def enough_tokens(sizes: pd.DataFrame) -> int:
    """Return the largest number of new tokens of which 90 % are seen at least 20 times."""
    return int(max(sizes.new_tokens[sizes.seen >= OFTEN], default=sizes.new_tokens.min()))


def _fitted(recipe: Recipe, shape: Shape, machine: Machine) -> Recipe:
    """Return a recipe whose training fits the memory: with smaller micro-batches, then gradient
    checkpointing, then adapters.
    """
    training, length = recipe.training, recipe.mixture.sequence_length
    most = training.micro_batch_tokens
    parts = [most >> times for times in range(20) if most >> times >= length] or [most]
    ranks = (training.lora_rank,) if training.lora_rank else (0, RANK)
    for rank, saving, part in product(ranks, (training.gradient_checkpointing, True), parts):
        options = {"lora_rank": rank, "gradient_checkpointing": saving, "micro_batch_tokens": part}
        recipe = recipe.with_options({f"training.{name}": value for name, value in options.items()})
        if training_bytes(shape, recipe, machine) <= ROOM * machine.memory:
            break
    return recipe
