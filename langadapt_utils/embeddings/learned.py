"""A method that looks beyond a token's pieces: at what the model makes of it.

Axes: B sequences at a time, S tokens of the student, T tokens of the teacher, V tokens of the old
vocabulary, N new tokens, D dimensions.
"""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from .. import hardware
from ..errors import ModelError
from ..models import longest_context
from ..tokens import document_start, token_ids
from .methods import NewEmbeddings, Request, subword_mean

CHARACTERS = 4  # of a token, about


class Reader:
    """The body of a base model, which reads ids of the adapted tokenizer with any new embeddings.

    Ids are translated to places first: an old token's place is its old id, a new one's comes after
    all old ones.

    Attributes:
        first_new: the lowest place of a new token.
        longest: tokens that the model can read at once.
        places: by id of the adapted tokenizer.
    """

    def __init__(self, request: Request) -> None:
        body = copy.deepcopy(request.model.base_model).to(hardware.device())
        self._body = body.eval().requires_grad_(False)
        matrix = self._body.get_input_embeddings().weight
        self._name = next(name for name, p in self._body.named_parameters() if p is matrix)
        self._old_VD = matrix.detach()
        self.first_new, self.longest = len(self._old_VD), longest_context(request.model)
        new = {token: self.first_new + place for place, token in enumerate(request.change.added)}
        self.places = request.change.new_to_old | new

    def states(self, places_BS: torch.Tensor, vectors_ND: torch.Tensor) -> torch.Tensor:
        """Return the last hidden states, of shape (B, S, D), with the given new embeddings."""
        new_ND = vectors_ND.to(self._old_VD.device, self._old_VD.dtype)
        matrix = torch.cat([self._old_VD, new_ND])
        with hardware.autocast(hardware.native_precision(), matrix.device.type):
            inputs = (places_BS.to(matrix.device),)
            output = torch.func.functional_call(self._body, {self._name: matrix}, inputs)
        states_BSD: torch.Tensor = output.last_hidden_state
        return states_BSD


def snippets(request: Request, texts: Sequence[str], length: int) -> Iterator[list[int]]:
    """Yield runs of ids from all over some texts, each after the start of a document.

    Args:
        request: gives the tokenizer, and the seed of their order.
        texts: documents of any length.
        length: tokens of a snippet at most.
    """
    tokenizer, stride = request.change.tokenizer, CHARACTERS * length
    places = [(index, at) for index, text in enumerate(texts) for at in range(0, len(text), stride)]
    random.Random(request.seed).shuffle(places)
    for index, at in places:
        (ids,) = token_ids(tokenizer, [texts[index][at : at + 2 * stride]])
        whole = ids[1:] if at else ids  # the text may be cut inside of a token
        yield [document_start(tokenizer), *whole[: length - 1]]


LENGTH = 50  # tokens of a snippet, as in the paper
SHOWN = 100  # snippets that show a token, at most, as in the paper
BUDGET = 60_000  # tokens of all snippets together
BATCH = 16  # snippets of a step
RATE = 3e-2  # of Adam, as a multiple of the usual size of an entry


def distilled(old_VD: torch.Tensor, request: Request) -> NewEmbeddings:
    """Train sub-word means until hidden states after a new token are those after its pieces.

    The base model reads snippets of text in old tokens (teacher) and in new ones (student); only
    the new embeddings learn, by the mean squared error of the last hidden states where a token of
    the student ends. Other than in the paper, a snippet shows all its new tokens at once, which
    teaches more embeddings with the same computation. Tokens in no snippet keep the mean.

    Source: token distillation, Dobler et al. 2025, arXiv 2505.20133.

    Raises:
        ModelError: no text was given, or none of it holds a new token.
    """
    if not request.texts:
        raise ModelError(
            "method 'distilled' learns from text of the target language: give some as `texts`"
        )
    start, shown = subword_mean(old_VD, request), list(_showing(request, list(request.texts)))
    if not shown:
        raise ModelError(
            "method 'distilled' found no new token in the texts: give text of the target language"
        )
    note = "learned from the mean of its pieces, so that hidden states agree"
    return NewEmbeddings(_trained(start.vectors_ND, request, shown), None, note)


def _showing(request: Request, texts: Sequence[str]) -> Iterator[list[int]]:
    """Yield snippets that show a new token seen rarely so far, until the budget is used up."""
    shown: Counter[int] = Counter()
    left = BUDGET
    for snippet in snippets(request, texts, LENGTH):
        new = request.change.added.keys() & set(snippet)
        if left > 0 and any(shown[token] < SHOWN for token in new):
            shown.update(new)
            left -= len(snippet)
            yield snippet


def _trained(vectors_ND: torch.Tensor, request: Request, shown: list[list[int]]) -> torch.Tensor:
    """Return the embeddings after one pass over the snippets."""
    reader = Reader(request)
    learned_ND = torch.nn.Parameter(vectors_ND.clone())
    optimizer = torch.optim.Adam([learned_ND], lr=RATE * vectors_ND.std().item())
    batches = [shown[at : at + BATCH] for at in range(0, len(shown), BATCH)]
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(batches))
    for batch in batches:
        teacher_BT, student_BS, ends_BS, taught_BS = _aligned(batch, request, reader)
        with torch.no_grad():
            states_BTD = reader.states(teacher_BT, vectors_ND).cpu()
        wanted = states_BTD.take_along_dim(ends_BS.unsqueeze(2), dim=1)[taught_BS].float()
        given = reader.states(student_BS, learned_ND).cpu()[taught_BS].float()
        loss = torch.nn.functional.mse_loss(given, wanted)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return learned_ND.detach()


def _aligned(batch: list[list[int]], request: Request, reader: Reader) -> tuple[torch.Tensor, ...]:
    """Return what teacher and student read, where each student token ends, what counts.

    What counts begins with the first new token.
    """
    change = request.change
    teacher, student, ends, taught = [], [], [], []
    for snippet in batch:
        spelled = [change.base_pieces.get(i) or (change.new_to_old[i],) for i in snippet]
        end_S = np.cumsum([len(ids) for ids in spelled]) - 1
        size = int(np.searchsorted(end_S, reader.longest))
        teacher.append(torch.tensor([old for ids in spelled[:size] for old in ids]))
        student.append(torch.tensor([reader.places[index] for index in snippet[:size]]))
        ends.append(torch.from_numpy(end_S[:size]))
        taught.append(student[-1].ge(reader.first_new).cumsum(0).gt(0))
    columns = (teacher, student, ends, taught)
    return tuple(pad_sequence(tensors, batch_first=True) for tensors in columns)
