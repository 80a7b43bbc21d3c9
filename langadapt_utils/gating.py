"""Gated rows: teach new tokens, with one vector for all of them, when they are due.

Axes: B sequences, S tokens, P places in the texts, V rows of the old vocabulary, N new tokens, D dimensions.
"""

from __future__ import annotations

from itertools import islice

import torch

from .errors import ModelError
from .reading import Reader, padded, snippets
from .rows import NewRows, Request, length_weighted

LENGTH = 128  # tokens of a snippet
SNIPPETS = 64  # of each language
BATCH = 4  # snippets at a time
GUARD = 16.0  # how much more a place in English weighs than one in the target language
PENALTY = 1.0  # on the square of the vector's length, in lengths of a usual row


def gated(old_VD: torch.Tensor, request: Request) -> NewRows:
    """Length-weighted means, all moved by one vector, so that the model writes new tokens where they are due.

    A mean of rows scores fairly well in any context: right after initialisation, new tokens draw probability in
    English, and too much of it in the target language. One vector added to all new rows multiplies their odds by
    what it says of the context. It is found by logistic regression: is the next token a new one, given the last
    hidden state? The start of a text says nothing of its language yet, and is left to English.

    The method is this project's own; it answers the remark of Hewitt 2021 that new rows disturb the softmax. A tied
    model reads with the moved rows too; an untied one reads with the means.

    Raises:
        ModelError: text of the target language or of English is missing.
    """
    averaged = length_weighted(old_VD, request)
    if not request.texts or not request.english:
        raise ModelError(
            "method 'gated' learns from text of the target language and of English: give some as `texts` and `english`"
        )
    states_PD, odds_P, due_P, weight_P = _observed(old_VD, averaged.rows_ND, request)
    strength = PENALTY / old_VD.norm(dim=1).mean().square()
    shared_D = torch.zeros(old_VD.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([shared_D], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        odds = odds_P + states_PD @ shared_D
        missed = torch.nn.functional.binary_cross_entropy_with_logits(odds, due_P, weight_P)
        total: torch.Tensor = missed + strength / 2 * shared_D.square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    note = "mean of its pieces, moved by a vector that all new rows share"
    return NewRows(averaged.rows_ND + shared_D.detach(), averaged.weights_NV, note)


def _observed(
    old_VD: torch.Tensor, new_ND: torch.Tensor, request: Request
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of places in texts: last hidden state, log-odds of a new token so far, whether one comes next, and weight."""
    reader = Reader(request)
    read_ND = length_weighted(request.model.get_input_embeddings().weight.detach().float().cpu(), request).rows_ND
    old, new = old_VD.to(reader.device), new_ND.to(reader.device)
    observed = []
    for texts, begin, weight in ((request.texts, 1, 1.0), (request.english, 0, GUARD)):
        shown = list(islice(snippets(request, texts or (), min(LENGTH, reader.longest)), SNIPPETS))
        for at in range(0, len(shown), BATCH):
            batch = [reader.places(ids) for ids in shown[at : at + BATCH]]
            with torch.no_grad(), reader.autocast():
                states_BSD = reader.states(padded(batch), read_ND)
                new_BS, old_BS = ((states_BSD @ rows.T).float().logsumexp(dim=2) for rows in (new, old))
            for ids, states, odds in zip(batch, states_BSD.float().cpu(), (new_BS - old_BS).cpu(), strict=True):
                places = slice(begin, len(ids) - 1)
                due = (ids[begin + 1 :] >= reader.first_new).float()
                observed.append((states[places], odds[places], due, torch.full_like(due, weight)))
    states, odds, due, weights = (torch.cat(parts) for parts in zip(*observed, strict=True))
    return states, odds, due, weights
