import re

import pandas as pd
import pytest
import torch

from langadapt_utils.embeddings.views import neighbours_widget, plot_map, plot_norms


def test_figures_tell_how_long_embeddings_are_and_how_far_they_spread() -> None:
    torch.manual_seed(0)
    old = torch.randn(400, 8)
    vectors = {"old embeddings": old, "subword_mean": old[:100] / 2, "random": 2 * old[100:200]}
    usual, half = (matrix.norm(dim=1).median().item() for matrix in (old, old[:100] / 2))
    title = plot_norms(vectors).get_title(loc="left").replace("\n", " ")
    said = f"Embeddings by subword mean are {half / usual:.0%} as long as old embeddings"
    assert title == f"{said} ({half:.2f} against {usual:.2f})"
    title = plot_map(vectors).get_title(loc="left").replace("\n", " ")
    shares = [int(share) for share in re.findall(r"(\d+)%", title)]
    assert shares[0] == pytest.approx(50, abs=12) and shares[1] == pytest.approx(200, abs=40)


def test_neighbours_are_shown_by_method() -> None:
    table = pd.DataFrame(
        [
            [" szép", "mean", [" sz", "ép"]],
            [" szép", "random", ["q", "<"]],
            ["ház", "mean", ["h", "á"]],
        ],
        columns=["token", "method", "neighbours"],
    )
    chosen, answer = neighbours_widget(table).controls.children
    assert "␣sz, ép" in answer.value and "q, &lt;" in answer.value
    chosen.value = "ház"
    assert "h, á" in answer.value and "random" not in answer.value
