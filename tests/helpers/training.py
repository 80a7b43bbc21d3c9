"""A small training run, its weights, and how it is stopped."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from langadapt_utils.recipe import TrainingRecipe
from langadapt_utils.training.trainer import Record, Report

RECIPE = TrainingRecipe(
    budget_tokens=2_560,
    batch_tokens=256,
    micro_batch_tokens=128,
    learning_rate=3e-3,
    precision="float32",
)


def weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def stop_at(step: int) -> Report:
    """Stop a run as a user does, when a step is reported."""

    def stop(record: Record) -> None:
        if record.get("step") == step:
            raise KeyboardInterrupt

    return stop
