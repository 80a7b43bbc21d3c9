import pandas as pd
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from langadapt_utils.embeddings.views import (
    neighbour_table,
    neighbours_widget,
    plot_norms,
)
from langadapt_utils.vocabulary.change import VocabularyChange


def test_figures_tell_how_long_embeddings_are() -> None:
    torch.manual_seed(0)
    old = torch.randn(400, 8)
    vectors = {"old embeddings": old, "subword_mean": old[:100] / 2, "random": 2 * old[100:200]}
    usual, half = (matrix.norm(dim=1).median().item() for matrix in (old, old[:100] / 2))
    title = plot_norms(vectors).get_title(loc="left").replace("\n", " ")
    said = f"Embeddings by subword mean are {half / usual:.0%} as long as old embeddings"
    assert title == f"{said} ({half:.2f} against {usual:.2f})"


@pytest.mark.parametrize("sets", [1, 7])
def test_any_number_of_sets_of_embeddings_is_drawn(sets: int) -> None:
    torch.manual_seed(0)
    vectors = {f"set_{number}": torch.randn(51, 8) for number in range(sets)}
    usual = vectors["set_0"].norm(dim=1).median().item()
    assert f"{usual:.2f}" in plot_norms(vectors).get_title(loc="left")


def test_neighbours_of_new_tokens_under_each_method(
    change: VocabularyChange, tokenizer: PreTrainedTokenizerFast
) -> None:
    old = torch.nn.functional.one_hot(torch.arange(len(tokenizer))).float()
    tokens = list(change.added)[:3]
    rows = torch.stack([old[list(change.base_pieces[new])].mean(dim=0) for new in change.added])
    table = neighbour_table({"mean": rows, "other": rows.flip(0)}, old, change, tokens=tokens)
    assert table.token.tolist() == [change.text(new) for new in tokens] * 2
    pieces = {change.base_text(old_id) for old_id in change.base_pieces[tokens[0]]}
    assert pieces <= set(table.neighbours[0])


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
