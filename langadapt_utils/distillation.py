"""Token distillation: learn the rows of new tokens, so that the model goes on as it did after their pieces.

Axes: B sequences, S tokens of the student, T tokens of the teacher, N new tokens, D dimensions.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from . import hardware
from .errors import ModelError
from .rows import NewRows, Request, subword_mean
from .tokens import document_start

if TYPE_CHECKING:
    from .changes import VocabularyChange

LENGTH = 50  # tokens of a snippet, as in the paper
SNIPPETS = 100  # that show a token, at most, as in the paper
BUDGET = 60_000  # tokens of all snippets together
BATCH = 16  # snippets of a step
RATE = 1e-2  # of Adam, times the usual size of an entry


def distilled(old_VD: torch.Tensor, request: Request) -> NewRows:
    """Sub-word means, trained so that hidden states after a new token are those after its pieces.

    The base model reads snippets of text in old tokens (teacher) and in new ones (student); only the new rows
    learn, by the mean squared error of the last hidden states at the ends of the student's tokens. Other than in
    the paper, a snippet shows all its new tokens at once, which teaches more rows with the same computation.
    Tokens that the snippets do not show keep the mean.

    Source: token distillation, Dobler et al. 2025, arXiv 2505.20133.

    Raises:
        ModelError: no text was given, or none of it holds a new token.
    """
    start = subword_mean(old_VD, request)
    if not request.texts:
        raise ModelError("method 'distilled' learns from text of the target language: give some as `texts`")
    rows_ND = _trained(start.rows_ND, request, list(snippets(request.change, request.texts, request.seed)))
    return NewRows(rows_ND, None, "learned from the mean of its pieces, so that hidden states agree")


def snippets(change: VocabularyChange, texts: Sequence[str], seed: int) -> Iterator[list[int]]:
    """Runs of new ids that show new tokens, those shown rarely so far first, until the budget is used up."""
    shown: Counter[int] = Counter()
    left = BUDGET
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(seed)).tolist()
    for index in order:
        ids = change.tokenizer(texts[index], add_special_tokens=False)["input_ids"]
        for start in range(0, len(ids), LENGTH):
            snippet = ids[start : start + LENGTH]
            new = change.added.keys() & set(snippet)
            if left > 0 and any(shown[token] < SNIPPETS for token in new):
                shown.update(new)
                left -= len(snippet)
                yield snippet


def _trained(rows_ND: torch.Tensor, request: Request, shown: list[list[int]]) -> torch.Tensor:
    """The rows after one pass over the snippets."""
    if not shown:
        raise ModelError("method 'distilled' found no new token in the texts: give text of the target language")
    device = hardware.device()
    model = copy.deepcopy(request.model.base_model).to(device).eval().requires_grad_(False)
    embedding = model.get_input_embeddings()
    name = next(name for name, parameter in model.named_parameters() if parameter is embedding.weight)
    old_VD = embedding.weight.detach()
    learned_ND = torch.nn.Parameter(rows_ND.to(device).clone())
    optimizer = torch.optim.Adam([learned_ND], lr=RATE * rows_ND.std().item())
    batches = [shown[at : at + BATCH] for at in range(0, len(shown), BATCH)]
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(batches))
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    for batch in batches:
        teacher_BT, student_BS, ends_BS, taught_BS = (
            part.to(device) for part in _aligned(batch, request.change, len(old_VD), longest)
        )
        with torch.no_grad():
            states_BTD = model(teacher_BT).last_hidden_state
        wanted_BSD = states_BTD.take_along_dim(ends_BS.unsqueeze(2), dim=1)
        weights = {name: torch.cat([old_VD, learned_ND.to(old_VD.dtype)])}
        given_BSD = torch.func.functional_call(model, weights, (student_BS,)).last_hidden_state
        loss = torch.nn.functional.mse_loss(given_BSD[taught_BS].float(), wanted_BSD[taught_BS].float())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return learned_ND.detach().cpu()


def _aligned(
    batch: list[list[int]], change: VocabularyChange, old_rows: int, longest: int | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """What teacher and student read, where each of the student's tokens ends for the teacher, and what counts.

    The student's ids point into the old rows with the new ones put below. What counts begins with the first new token.
    """
    places = change.kept | {new: old_rows + place for place, new in enumerate(change.added)}
    start = document_start(change.tokenizer)
    teacher, student, ends, taught = [], [], [], []
    for snippet in batch:
        spelled = [change.spelled.get(new) or (change.kept[new],) for new in (start, *snippet)]
        end_S = np.cumsum([len(ids) for ids in spelled]) - 1
        size = len(end_S) if longest is None else int(np.searchsorted(end_S, longest))
        teacher.append(torch.tensor([old for ids in spelled[:size] for old in ids]))
        student.append(torch.tensor([places[new] for new in (start, *snippet)[:size]]))
        ends.append(torch.from_numpy(end_S[:size]))
        taught.append(student[-1].ge(old_rows).cumsum(0).gt(0))
    padded = (pad_sequence(parts, batch_first=True) for parts in (teacher, student, ends, taught))
    return tuple(padded)  # type: ignore[return-value]
