"""A plan: what a run will take and cost, and with which options, before anything is paid for.

No weights are loaded: a model is known by its configuration, a text by up to 20 MB of it. Each
estimate says in its docstring how it is made; `benchmarks/plan.py` compares them with measurements.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import pandas as pd
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from .corpus.corpus import load_corpus
from .display.html import render
from .fertility import measure_fertility
from .hardware import Machine, machine_named
from .languages import language_name
from .models import check_model, fetch_model, load_tokenizer, quiet_transformers, token_layers
from .recipe import Recipe
from .training.optimizer import learning_rate
from .vocabulary.enough import Allowance, token_numbers

NUMBERS = (10, 20, 50, 100, 200, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000)  # of new tokens
OFTEN = 0.9  # of new tokens are to be seen often enough
RANK = 64  # of adapters, where the whole model does not fit
ROOM = 0.9  # of the memory of a device that may be filled
# Parity below which a base knows a language, and the share of the learning rate that it then gets:
# Gemma 3 270M in Hungarian (1.6) loses 25 % with the whole and 10 % with a fifth
# (data/reference/rates-hu-gemma-40k.json).
READS_WELL, CAREFUL = 1.7, 0.2
LIBRARIES = 0.7e9  # bytes
LOGIT_OPERATIONS, STEP_OPERATIONS = 6_500, 650  # per entry of the logits; per parameter


@dataclass(frozen=True)
class Shape:
    """The size of a model, from its configuration."""

    parameters: int
    embeddings: int  # numbers in matrices with a row per token
    linear: int  # inputs and outputs of all linear layers of the body: an adapter has its rank each
    layers: int
    width: int
    vocabulary: int

    @classmethod
    def of(cls, base: str, accept_terms: str = "") -> Shape:
        """Return the shape of a base model; of one on the hub no weights are fetched."""
        folder = fetch_model(base, accept_terms, weights=False)
        check_model(folder, weights=False)
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
        with torch.device("meta"), quiet_transformers():
            model = AutoModelForCausalLM.from_config(config)
        matrices = {id(layer.weight): layer.weight for layer in token_layers(model)}
        body = (m for m in model.modules() if isinstance(m, torch.nn.Linear))
        inner = [m.in_features + m.out_features for m in body if id(m.weight) not in matrices]
        embeddings, text = sum(m.numel() for m in matrices.values()), config.get_text_config()
        size = text.num_hidden_layers, text.hidden_size, text.vocab_size
        return cls(model.num_parameters(), embeddings, sum(inner), *size)

    @property
    def multiplied(self) -> int:
        """Parameters that a token is multiplied with: all but those of a separate input matrix."""
        return self.parameters - self.embeddings + self.vocabulary * self.width

    def with_tokens(self, tokens: int) -> Shape:
        """Return the shape with new tokens."""
        more = self.embeddings // self.vocabulary * tokens
        grown = {"parameters": self.parameters + more, "embeddings": self.embeddings + more}
        return replace(self, vocabulary=self.vocabulary + tokens, **grown)


def training_bytes(shape: Shape, recipe: Recipe, machine: Machine) -> float:
    """Return the bytes that training holds on each device.

    What learns takes 18 bytes a number: weight, gradient and two moments in float32, and the weight
    in bfloat16. What only multiplies (the body under adapters) takes 2. Weights are shared out over
    GPUs (FSDP 2) where there are several and all learn. A token keeps 64 bytes per layer and
    dimension (counted: 53 to 80 in Llama, 97 in Gemma 3 with its small width; Korthikanti et al.
    2022, arXiv 2205.05198, have 34, all in bfloat16), or 4 and one layer's 64 with gradient
    checkpointing. Its logits take 16 bytes an entry, and none with the fused loss, which is for
    GPUs. Libraries take 0.7 GB.
    """
    training = recipe.training
    if training.lora_rank:
        learns = shape.embeddings + training.lora_rank * shape.linear
        weights = 18.0 * learns + 2 * (shape.parameters - shape.embeddings)
    else:
        weights = 18 * shape.parameters / max(1, machine.gpus)
    one = 64 * shape.width
    kept = 4 * shape.width * shape.layers + one if training.gradient_checkpointing else 0
    logits = 16 * shape.vocabulary * _has_logits(recipe, machine)
    tokens = max(training.micro_batch_tokens, recipe.mixture.sequence_length)
    return LIBRARIES + weights + tokens * ((kept or one * shape.layers) + logits)


def _has_logits(recipe: Recipe, machine: Machine) -> bool:
    return not (machine.gpus and recipe.training.fused_loss)


def training_operations(shape: Shape, recipe: Recipe, machine: Machine, tokens: float) -> float:
    """Return what it costs to learn from tokens, in operations of a matrix product.

    A token costs 6 operations a parameter (Kaplan et al. 2020, arXiv 2001.08361), 8 with gradient
    checkpointing; an entry of its logits, which are read and written many times, as much as 6,500
    operations, and each step of the optimizer 650 a parameter: these two were fitted to three
    models on two cores (`benchmarks/plan.py`).
    """
    multiplied = (8 if recipe.training.gradient_checkpointing else 6) * shape.multiplied
    logits = LOGIT_OPERATIONS * shape.vocabulary * _has_logits(recipe, machine)
    step = STEP_OPERATIONS * shape.parameters / max(recipe.training.batch_tokens, 1)
    return tokens * (multiplied + logits + step)


def stage_seconds(
    shape: Shape, recipe: Recipe, machine: Machine, tokens_per_document: float = 700.0
) -> dict[str, float]:
    """Return the seconds that each stage takes.

    Learning takes `training_operations`; reading, to measure, a third of them (without the
    optimizer), at the speed of matrix products in training. Starting a notebook, learning tokens
    and drawing take some seconds on top.

    Args:
        shape: of the adapted model.
        recipe: of the run.
        machine: to run on.
        tokens_per_document: of held-out text.
    """
    few, many = recipe.evaluation.comparison_documents, recipe.evaluation.documents
    methods, sweeps = len(recipe.embeddings.compare), len(recipe.mixture.sweep)
    batch = max(recipe.mixture.sequence_length, recipe.training.batch_tokens // 4)
    probed = methods * recipe.embeddings.probe_steps * batch
    trained = recipe.trained_tokens + sweeps * recipe.mixture.sweep_tokens
    read = {
        "03_embeddings": 2 * few * (2 * methods + 1),
        "04_training": 2 * few * (sweeps + 1),
        "05_evaluation": 6 * many + 2 * few * len(recipe.evaluation.interpolation_points),
    }
    learned = {"03_embeddings": probed, "04_training": trained}
    alone = {"01_fertility": 12.0, "02_vocabulary": 35.0, "03_embeddings": 20.0}
    alone |= {"04_training": 20.0, "05_evaluation": 40.0}
    a_token = 2 * shape.multiplied + LOGIT_OPERATIONS / 3 * shape.vocabulary

    def operations(stage: str) -> float:
        measured = a_token * read.get(stage, 0) * tokens_per_document
        return measured + training_operations(shape, recipe, machine, learned.get(stage, 0))

    def speed(stage: str) -> float:  # only training is shared out over several GPUs
        return machine.speed * (max(1, machine.gpus) if stage == "04_training" else 1)

    return {stage: alone[stage] + operations(stage) / speed(stage) for stage in alone}


@dataclass(frozen=True)
class Plan:
    """What a run will take, and the recipe that it should have.

    Attributes:
        recipe: with the options that were chosen.
        machine: that it is for.
        shape: of the adapted model.
        cost: tokens of the language now, over those of English for the same text (NaN where there
            are no translations), over words and over bytes: `parity`, `tokens_per_word`,
            `tokens_per_byte`.
        sizes: as `token_numbers` gives them, and `megabytes` of embeddings in bfloat16.
        tokens_per_document: of held-out text.
        passes: over the text of each language.
    """

    recipe: Recipe
    machine: Machine
    shape: Shape
    cost: Mapping[str, float]
    sizes: pd.DataFrame
    tokens_per_document: float
    passes: Mapping[str, float]

    @property
    def memory(self) -> float:
        """Bytes on each device."""
        return training_bytes(self.shape, self.recipe, self.machine)

    @cached_property
    def seconds(self) -> dict[str, float]:
        """Of each stage."""
        return stage_seconds(self.shape, self.recipe, self.machine, self.tokens_per_document)

    def __str__(self) -> str:
        code, sizes = self.recipe.language, self.sizes
        row = sizes[sizes.new_tokens == self.recipe.vocabulary.tokens].iloc[0]
        text = Allowance(code, row.bytes, row.passes, int(row.new_tokens), row.seen)
        about = {"plan": self, "name": language_name(code), "text": text, "row": row}
        about |= {"room": ROOM, "reads_well": READS_WELL, "often": OFTEN}
        return str(render("planning.txt.j2", **about))


def plan(recipe: Recipe, *, gpu: str = "", gpus: int = 1) -> Plan:
    """Plan a run: choose what its text, its base and a machine allow, and say what it will take.

    Chosen are the number of new tokens, the learning rate, the parts of a batch, gradient
    checkpointing and adapters; the other options stay those of the recipe.

    Args:
        recipe: base, language, text, budget.
        gpu: a card in `hardware.GPUS`; this machine where it is empty.
        gpus: how many of them.

    Raises:
        LangadaptError: base, text or card are not as they must be.
    """
    shape, machine = Shape.of(recipe.base, recipe.accept_terms), machine_named(gpu, gpus)
    tokenizer = load_tokenizer(fetch_model(recipe.base, recipe.accept_terms, weights=False))
    corpus = load_corpus(recipe.corpus, recipe.language)
    sizes = token_numbers(tokenizer, corpus, recipe, NUMBERS)
    sizes["megabytes"] = sizes.new_tokens * (2e-6 * shape.embeddings / shape.vocabulary)
    tokens = enough_tokens(sizes)
    texts, parallel = corpus.measuring_texts()
    report = measure_fertility({"base": tokenizer}, texts, parallel=parallel)
    columns = ("parity", "tokens_per_word", "tokens_per_byte")
    cost = {name: report.value("base", recipe.language, name) for name in columns}
    rate = learning_rate(asked := recipe.training.learning_rate, shape.parameters)
    rate *= CAREFUL if asked == "auto" and cost["parity"] < READS_WELL else 1
    chosen = {"vocabulary.tokens": tokens, "training.learning_rate": float(f"{rate:.1e}")}
    grown = shape.with_tokens(tokens)
    fitted = _fitted(recipe.with_options(chosen), grown, machine)
    heldout = corpus.heldout[recipe.language]["text"][: recipe.evaluation.documents]
    length = cost["tokens_per_byte"] * sum(len(text.encode()) for text in heldout) / len(heldout)
    english = sum(len(text.encode()) for text in corpus.train["en"]["text"])
    seen = recipe.training.budget_tokens * recipe.mixture.english_share
    english_passes = seen / (english * report.value("base", "en", "tokens_per_byte"))
    passes = sizes.passes[sizes.new_tokens == tokens].iloc[0]
    about = {"en": english_passes, recipe.language: float(passes)}
    return Plan(fitted, machine, grown, cost, sizes, length, about)


def enough_tokens(sizes: pd.DataFrame) -> int:
    """Return the largest number of new tokens of which nine in ten are seen 20 times."""
    often = sizes.new_tokens[sizes.seen >= OFTEN]
    return int(often.max() if len(often) else sizes.new_tokens.min())


def _fitted(recipe: Recipe, shape: Shape, machine: Machine) -> Recipe:
    """Return a recipe whose training fits the memory of a machine: in smaller parts, with gradient
    checkpointing, at last with adapters.
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
