import pytest

from langadapt_utils.hardware import estimate_training_time
from langadapt_utils.recipe import Recipe
from langadapt_utils.training.estimates import ResourceEstimate, estimate_resources

SEVEN_BILLION = {"parameters": 6.7e9, "layers": 32, "width": 4096, "vocabulary": 40_000}


def needs(overrides: dict[str, object] | None = None, **options: object) -> ResourceEstimate:
    recipe = Recipe.profile(
        "gpu", overrides={"training.micro_batch_tokens": 8_192, **(overrides or {})}
    )
    return estimate_resources(recipe, **{**SEVEN_BILLION, **options})  # type: ignore[arg-type]


def test_the_estimate_grows_with_parameters_and_tokens() -> None:
    once = estimate_training_time(10**6, 10**4, "float32")
    assert estimate_training_time(10**6, 2 * 10**4, "float32") == pytest.approx(2 * once)
    assert estimate_training_time(3 * 10**6, 10**4, "float32") == pytest.approx(3 * once)


def test_a_weight_takes_16_bytes_and_is_shared_out() -> None:
    assert needs().weights_gb == pytest.approx(107.2)
    assert needs(gpus=8).weights_gb == pytest.approx(107.2)
    assert needs(gpus=8, sharded=True).weights_gb == pytest.approx(13.4)


def test_checkpointing_trades_memory_for_time() -> None:
    plain, saving = needs(), needs({"training.gradient_checkpointing": True})
    assert saving.activations_gb < plain.activations_gb / 10
    assert saving.hours == pytest.approx(plain.hours * 4 / 3)


def test_more_gpus_take_less_time_and_smaller_batches_less_memory() -> None:
    assert needs(gpus=8).hours == pytest.approx(needs().hours / 8)
    assert needs({"training.micro_batch_tokens": 4_096}).activations_gb == pytest.approx(
        needs().activations_gb / 2
    )
    assert needs({"training.fused_loss": False}).memory_gb > needs().memory_gb
    assert str(needs(gpus=8, sharded=True)).startswith(
        "50 GB on each GPU (13 for weights and optimiser, 37 for "
    )
    assert needs(gpus=8).host_gb == pytest.approx(428.8) and needs().disk_gb == pytest.approx(268)
