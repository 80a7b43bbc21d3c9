"""Token distillation: learn the rows of new tokens, so that the model goes on as it did after their pieces.

Axes: B sequences, S tokens of the student, T tokens of the teacher, N new tokens, D dimensions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import torch

from .errors import ModelError
from .reading import Reader, padded, snippets
from .rows import NewRows, Request, subword_mean

LENGTH = 50  # tokens of a snippet, as in the paper
SHOWN = 100  # snippets that show a token, at most, as in the paper
BUDGET = 60_000  # tokens of all snippets together
BATCH = 16  # snippets of a step
RATE = 3e-2  # of Adam, as a multiple of the usual size of an entry


def distilled(old_VD: torch.Tensor, request: Request) -> NewRows:
    """Sub-word means, trained so that hidden states after a new token are those after its pieces.

    The base model reads snippets of text in old tokens (teacher) and in new ones (student); only the new rows learn,
    by the mean squared error of the last hidden states where a token of the student ends. Other than in the paper, a
    snippet shows all its new tokens at once, which teaches more rows with the same computation. Tokens that no
    snippet shows keep the mean.

    Source: token distillation, Dobler et al. 2025, arXiv 2505.20133.

    Raises:
        ModelError: no text was given, or none of it holds a new token.
    """
    start = subword_mean(old_VD, request)
    if not request.texts:
        raise ModelError("method 'distilled' learns from text of the target language: give some as `texts`")
    shown = list(_showing(request))
    if not shown:
        raise ModelError("method 'distilled' found no new token in the texts: give text of the target language")
    rows_ND = _trained(start.rows_ND, request, shown)
    return NewRows(rows_ND, None, "learned from the mean of its pieces, so that hidden states agree")


def _showing(request: Request) -> Iterator[list[int]]:
    """Snippets that show a new token which was shown rarely so far, until the budget is used up."""
    shown: Counter[int] = Counter()
    left = BUDGET
    for snippet in snippets(request, request.texts or (), LENGTH):
        new = request.change.added.keys() & set(snippet)
        if left > 0 and any(shown[token] < SHOWN for token in new):
            shown.update(new)
            left -= len(snippet)
            yield snippet


def _trained(rows_ND: torch.Tensor, request: Request, shown: list[list[int]]) -> torch.Tensor:
    """The rows after one pass over the snippets."""
    reader = Reader(request)
    learned_ND = torch.nn.Parameter(rows_ND.clone())
    optimizer = torch.optim.Adam([learned_ND], lr=RATE * rows_ND.std().item())
    batches = [shown[at : at + BATCH] for at in range(0, len(shown), BATCH)]
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(batches))
    for batch in batches:
        teacher_BT, student_BS, ends_BS, taught_BS = _aligned(batch, request, reader)
        with torch.no_grad():
            states_BTD = reader.states(teacher_BT, rows_ND).cpu()
        wanted = states_BTD.take_along_dim(ends_BS.unsqueeze(2), dim=1)[taught_BS].float()
        given = reader.states(student_BS, learned_ND).cpu()[taught_BS].float()
        loss = torch.nn.functional.mse_loss(given, wanted)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return learned_ND.detach()


def _aligned(batch: list[list[int]], request: Request, reader: Reader) -> tuple[torch.Tensor, ...]:
    """What teacher and student read, where each of the student's tokens ends for the teacher, and what counts.

    What counts begins with the first new token.
    """
    change = request.change
    teacher, student, ends, taught = [], [], [], []
    for snippet in batch:
        spelled = [change.spelled.get(index) or (change.kept[index],) for index in snippet]
        end_S = np.cumsum([len(ids) for ids in spelled]) - 1
        size = int(np.searchsorted(end_S, reader.longest))
        teacher.append(torch.tensor([old for ids in spelled[:size] for old in ids]))
        student.append(reader.places(snippet[:size]))
        ends.append(torch.from_numpy(end_S[:size]))
        taught.append(student[-1].ge(reader.first_new).cumsum(0).gt(0))
    return tuple(map(padded, (teacher, student, ends, taught)))
