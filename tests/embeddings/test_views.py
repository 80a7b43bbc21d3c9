import pandas as pd
import torch
from transformers import PreTrainedTokenizerFast

from langadapt_utils.embeddings.views import neighbour_table, neighbours_widget
from langadapt_utils.vocabulary.change import VocabularyChange


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


def test_an_added_token_without_a_row_is_no_neighbour(
    change: VocabularyChange, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Gemma 3 has one on the hub."""
    old = torch.nn.functional.one_hot(torch.arange(len(tokenizer) - 1)).float()
    rows = torch.rand(len(change.added), len(tokenizer) - 1)
    table = neighbour_table({"mean": rows}, old, change, tokens=list(change.added)[:2])
    last = change.base_text(len(tokenizer) - 1)
    assert len(table) == 2 and all(last not in found for found in table.neighbours)
