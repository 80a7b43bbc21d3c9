"""Methods that look beyond a token's pieces: at how text uses it (FOCUS), or at a model that knows it (pursuit).

Axes: V rows of the old vocabulary, N new tokens, O tokens that both sides know, D dimensions, E dimensions of the
other space, B tokens at a time, K tokens of a mixture.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import normalize

from .errors import ModelError
from .rows import NewRows, Request, mixed
from .tokens import vocabulary_bytes

DIMENSIONS, EPOCHS, RARE = 300, 3, 10  # of the auxiliary embeddings, as in the paper
BUCKETS = 200_000  # of fastText's character n-grams; tokens are short, and there are few of them
ANCHORS = 64  # of a mixture, as in the paper
BLOCK = 256  # new tokens at a time

Mixture = tuple[torch.Tensor, torch.Tensor]  # places (2, entries) and values (entries,) of a sparse matrix


def focus(old_VD: torch.Tensor, request: Request) -> NewRows:
    """Mixtures of old rows, weighted by how alike tokens are used in text of the target language.

    Likeness is the cosine of fastText embeddings trained on the text in the new tokens; the weights are its sparsemax
    over the kept tokens that the text shows.

    Source: FOCUS, Dobler and de Melo 2023, arXiv 2305.14481.

    Raises:
        ModelError: no text was given, it is too short, or the package gensim is missing.
    """
    return mixed(old_VD, *request.once(_likeness), len(request.change.added), "mixture of old tokens used like it")


def matching_pursuit(old_VD: torch.Tensor, request: Request) -> NewRows:
    """Mixtures of old rows with the weights that rebuild a token's row in a donor model from the same tokens.

    The tokens that both models know are the anchors. A token that the donor lacks has the mean of its pieces there.

    Source: Goddard and Fernandes Neto 2025, arXiv 2506.06607.

    Raises:
        ModelError: no donor was given, or it shares no token with the model.
    """
    return mixed(old_VD, *request.once(_rebuilt), len(request.change.added), "mixture that rebuilds it in the donor")


def sparsemax(scores_BO: torch.Tensor) -> torch.Tensor:
    """The point of the probability simplex that is nearest to each row of scores.

    Source: Martins and Astudillo 2016, arXiv 1602.02068.
    """
    sorted_BO = scores_BO.sort(dim=1, descending=True).values
    excess_BO = sorted_BO.cumsum(dim=1) - 1
    ranks_O = torch.arange(1, scores_BO.shape[1] + 1)
    support_B1 = (sorted_BO * ranks_O > excess_BO).sum(dim=1, keepdim=True)
    return (scores_BO - excess_BO.gather(1, support_B1 - 1) / support_B1).clamp(min=0)


def pursue(target_BE: torch.Tensor, anchors_OE: torch.Tensor, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rebuild each target from a few anchors: add the anchor most like what is left over, fit anew, and again.

    Args:
        target_BE: what to rebuild.
        anchors_OE: what to rebuild it from.
        most: anchors for each target.

    Returns:
        Indices of anchors and their weights, both of shape (B, K).

    Source: orthogonal matching pursuit, Pati, Rezaiifar and Krishnaprasad 1993.
    """
    directions_OE = normalize(anchors_OE, dim=1)
    rest_BE, weights_BK = target_BE, torch.empty(len(target_BE), 0)
    chosen_BK = torch.empty(len(target_BE), 0, dtype=torch.long)
    for _ in range(min(most, *anchors_OE.shape)):
        likeness_BO = (rest_BE @ directions_OE.T).abs().scatter_(1, chosen_BK, -1)
        chosen_BK = torch.cat([chosen_BK, likeness_BO.argmax(dim=1, keepdim=True)], dim=1)
        picked_BKE = anchors_OE[chosen_BK]
        gram_BKK = picked_BKE @ picked_BKE.mT
        gram_BKK.diagonal(dim1=1, dim2=2).mul_(1 + 1e-6)  # two anchors may be almost the same
        weights_BK = torch.linalg.solve(gram_BKK, picked_BKE @ target_BE.unsqueeze(2)).squeeze(2)
        rest_BE = target_BE - (weights_BK.unsqueeze(1) @ picked_BKE).squeeze(1)
    return chosen_BK, weights_BK


def _likeness(request: Request) -> Mixture:
    if not request.texts:
        raise ModelError("method 'focus' learns from text of the target language: give some as `texts`")
    try:
        from gensim.models import FastText
    except ImportError as error:
        raise ModelError("method 'focus' needs the package gensim: pip install 'langadapt[focus]'") from error
    change = request.change
    names = {index: surface for surface, index in change.tokenizer.get_vocab().items()}
    encoded = change.tokenizer(list(request.texts), add_special_tokens=False)["input_ids"]
    sentences = [[names[index] for index in ids] for ids in encoded]
    fasttext = FastText(vector_size=DIMENSIONS, min_count=RARE, bucket=BUCKETS, workers=1, seed=request.seed)
    fasttext.build_vocab(sentences)
    kept = ((old, names[new]) for new, old in change.kept.items() if new in names)
    shown = [(old, name) for old, name in kept if name in fasttext.wv.key_to_index]
    if not shown:
        raise ModelError(
            f"method 'focus' found no old token that its {len(encoded):,} texts show at least {RARE} times: give more "
            "text, or use method 'subword_mean'"
        )
    fasttext.train(sentences, total_examples=len(sentences), epochs=EPOCHS)
    old_OE = normalize(torch.from_numpy(np.stack([fasttext.wv[name] for _, name in shown])), dim=1)
    new_NE = normalize(torch.from_numpy(np.stack([fasttext.wv[surface] for surface in change.added.values()])), dim=1)
    weights_NO = torch.cat(
        [sparsemax(new_BE @ old_OE.T).to_sparse() for new_BE in torch.split(new_NE, BLOCK)]
    ).coalesce()
    rows, columns = weights_NO.indices()
    return torch.stack([rows, torch.tensor([old for old, _ in shown])[columns]]), weights_NO.values()


def _rebuilt(request: Request) -> Mixture:
    if request.donor is None:
        raise ModelError("method 'matching_pursuit' needs a model that knows the new tokens: give it as `donor`")
    donor, change = request.donor, request.change
    ids = {raw: index for index, raw in vocabulary_bytes(donor.tokenizer).items()}
    shared = [(old, ids[raw]) for new, old in change.kept.items() if (raw := request.bytes_of.get(new)) in ids]
    if not shared:
        raise ModelError("the donor shares no token with the model: give another one, or use method 'subword_mean'")
    donor_VE = donor.model.get_input_embeddings().weight.detach().float()

    def spelled(raw: bytes) -> list[int]:
        text = raw.decode("utf-8", "replace")
        return [ids[raw]] if raw in ids else donor.tokenizer(text, add_special_tokens=False)["input_ids"]

    pieces = [spelled(request.bytes_of[new]) for new in change.added]
    target_NE = torch.stack([donor_VE[places].mean(dim=0) for places in pieces])
    anchors_OE = donor_VE[[index for _, index in shared]]
    found = [pursue(target_BE, anchors_OE, ANCHORS) for target_BE in torch.split(target_NE, BLOCK)]
    chosen_NK, weights_NK = (torch.cat(parts) for parts in zip(*found, strict=True))
    rows = torch.arange(len(chosen_NK)).repeat_interleave(chosen_NK.shape[1])
    return torch.stack([rows, torch.tensor([old for old, _ in shared])[chosen_NK.flatten()]]), weights_NK.flatten()
