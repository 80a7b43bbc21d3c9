import pytest
import torch

from langadapt_utils import hardware
from langadapt_utils.errors import LangadaptError


def test_an_apple_gpu_is_taken_and_another_device_can_be_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("LANGADAPT_DEVICE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert hardware.device().type == "mps" and hardware.native_precision() == "float32"
    monkeypatch.setenv("LANGADAPT_DEVICE", "cpu")
    assert hardware.device().type == "cpu"
    monkeypatch.setenv("LANGADAPT_DEVICE", "cuda")
    with pytest.raises(LangadaptError, match=r"LANGADAPT_DEVICE is cuda, .* one of mps, cpu"):
        hardware.device()
