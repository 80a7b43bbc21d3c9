"""Controls answer, show errors in place, and have a static copy."""

import pytest

from langadapt_utils.display.widgets import Interactive, evenly_spread, listed, new_slider


def halves(slider: object) -> str:
    return f"half is {10 / slider.value}"  # type: ignore[attr-defined]


def test_an_answer_follows_its_control_and_an_error_is_shown_in_place() -> None:
    slider = new_slider("number", [0, 1, 4], 1)
    *_, below = Interactive([slider], lambda: halves(slider), "copy").controls.children
    assert below.value.endswith("half is 10.0")
    slider.value = 4
    assert below.value.endswith("half is 2.5")
    slider.value = 0
    assert '<p role="alert"><b>ZeroDivisionError</b>: ' in below.value
    slider.value = 1
    assert below.value.endswith("half is 10.0")


def test_the_live_control_hides_its_twin() -> None:
    shown = Interactive([], lambda: "live", "<b>a copy</b>")
    (below,) = shown.controls.children
    name = below.value.removeprefix("<style>#").removesuffix("{display:none}</style>live")
    assert str(shown.static) == f'<div id="{name}"><b>a copy</b></div>'
    other = Interactive([], lambda: "live", "another copy")
    assert name not in str(other.static)


@pytest.mark.parametrize("count", [0, 1, 2, 8, 9, 50])
def test_a_twin_shows_at_most_eight_answers_with_both_ends(count: int) -> None:
    options = list(range(count))
    chosen = evenly_spread(options)
    assert len(chosen) == min(8, count) and chosen == sorted(set(chosen))
    assert chosen[:1] == options[:1] and chosen[-1:] == options[-1:]
    assert listed(["a", "<b>b</b>"]) == "<ul><li>a</li><li><b>b</b></li></ul>"
