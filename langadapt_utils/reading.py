"""Reading text in new tokens with a model whose rows for them are still being made.

Axes: B sequences, S tokens, V rows of the old vocabulary, N new tokens, D dimensions.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager

import torch
from torch.nn.utils.rnn import pad_sequence

from . import hardware
from .models import longest_context
from .rows import Request
from .tokens import document_start

CHARACTERS = 4  # of a token, about


class Reader:
    """The body of a base model, which reads ids of the adapted tokenizer with any rows for the new ones.

    Ids are translated to places first: an old token's place is its old id, a new one's comes after all old rows.

    Attributes:
        first_new: the lowest place of a new token.
        longest: tokens that the model can read at once.
    """

    def __init__(self, request: Request) -> None:
        self._body = copy.deepcopy(request.model.base_model).to(hardware.device()).eval().requires_grad_(False)
        matrix = self._body.get_input_embeddings().weight
        self._name = next(name for name, parameter in self._body.named_parameters() if parameter is matrix)
        self._old_VD = matrix.detach()
        self.first_new = len(self._old_VD)
        self.longest = longest_context(request.model)
        new = {token: self.first_new + place for place, token in enumerate(request.change.added)}
        self._places = request.change.kept | new
        self.device = self._old_VD.device

    def autocast(self) -> AbstractContextManager[None]:
        """Matrix products in the precision that the hardware computes fast in."""
        return hardware.autocast(hardware.native_precision(), self.device.type)

    def places(self, ids: Iterable[int]) -> torch.Tensor:
        """The places of some ids of the adapted tokenizer."""
        return torch.tensor([self._places[index] for index in ids])

    def states(self, places_BS: torch.Tensor, rows_ND: torch.Tensor) -> torch.Tensor:
        """The last hidden states, of shape (B, S, D), with the given rows for new tokens."""
        matrix = torch.cat([self._old_VD, rows_ND.to(self._old_VD.device, self._old_VD.dtype)])
        with self.autocast():
            read = torch.func.functional_call(self._body, {self._name: matrix}, (places_BS.to(matrix.device),))
        states_BSD: torch.Tensor = read.last_hidden_state
        return states_BSD


def snippets(request: Request, texts: Sequence[str], length: int) -> Iterator[list[int]]:
    """Runs of ids of the adapted tokenizer from all over some texts, each after the start of a document.

    Args:
        request: gives the tokenizer, and the seed of their order.
        texts: documents of any length.
        length: tokens of a snippet at most.
    """
    tokenizer, stride = request.change.tokenizer, CHARACTERS * length
    places = [(index, at) for index, text in enumerate(texts) for at in range(0, len(text), stride)]
    random.Random(request.seed).shuffle(places)
    for index, at in places:
        ids = tokenizer(texts[index][at : at + 2 * stride], add_special_tokens=False)["input_ids"]
        whole = ids[1:] if at else ids  # the text may be cut inside of a token
        yield [document_start(tokenizer), *whole[: length - 1]]


def padded(rows: Iterable[torch.Tensor]) -> torch.Tensor:
    """Rows of different lengths in one tensor, zeros on the right."""
    return pad_sequence(list(rows), batch_first=True)
