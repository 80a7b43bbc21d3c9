import pytest

from langadapt_utils.training.views import loss_ends, plot_training


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
