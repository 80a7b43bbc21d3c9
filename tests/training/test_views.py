from typing import Any

import pytest

from langadapt_utils.display.html import Html
from langadapt_utils.training.views import live_curve, loss_ends, plot_training


@pytest.mark.parametrize("languages", [("target", "en"), ("target",), ("en",)])
def test_training_is_drawn_for_the_languages_it_had(languages: tuple[str, ...]) -> None:
    steps = [
        {"tokens": 10 * i, "bits_per_byte": {code: 3 - i / 10 for code in languages}}
        for i in range(1, 12)
    ]
    ax = plot_training(steps, "th")
    assert len(ax.lines) == 2 * len(languages) and (
        "Thai" in ax.get_title(loc="left").replace("\n", " ")
    ) == ("target" in languages)


def test_the_target_language_comes_first_also_in_a_resumed_run() -> None:
    steps = [{"tokens": 10, "bits_per_byte": {"en": 1.0, "target": 3.0}}]
    assert [row["language"] for row in loss_ends(steps, "hu")] == ["hu", "en"]


def test_the_curve_is_shown_while_a_model_trains_and_goes_when_it_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown: list[str] = []
    records: list[dict[str, Any]] = []

    class Place:
        def update(self, what: Html) -> None:
            shown.append(str(what))

    monkeypatch.setattr("IPython.display.display", lambda *_, **__: Place())
    report = live_curve("hu", records.append, seconds=0.0)
    report({"doing": "reading"})
    for step in (1, 2, 3):
        losses = {"target": 3.0 - step, "en": 1.0}
        report({"step": step, "steps": 3, "tokens": 100 * step, "bits_per_byte": losses})
    assert len(records) == 4 and len(shown) == 3
    assert (
        all("data:image/png" in html and "Training loss" in html for html in shown[:2])
        and shown[2] == ""
    )
