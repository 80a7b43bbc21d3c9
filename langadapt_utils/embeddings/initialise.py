"""Give a model embeddings for the tokens of a changed vocabulary.

If possible, a method returns the weights with which each new embedding is mixed from old ones. Then
one sparse product computes all new embeddings, and the provenance of each is known.

Axes: V tokens of the old vocabulary, N new tokens, D dimensions of an embedding.
"""

import copy
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import normalize
from transformers import PreTrainedModel

from ..errors import ModelError
from ..models import check_rows, declare_untied, is_tied, token_layers
from ..vocabulary.change import VocabularyChange

NOISE = 1e-2  # added to an embedding that equals another one, as a fraction of its length
BLOCK = 1_024  # embeddings that are processed together
POSITIONS = re.compile(r"pos|wpe")  # in names of tables with a row per position


@dataclass(frozen=True)
class NewEmbeddings:
    """Embeddings of new tokens, with their provenance.

    Attributes:
        vectors_ND: in float32, in the order of `VocabularyChange.added`.
        weights_NV: sparse weights of old embeddings in new ones; None for random embeddings.
        note: description of the method.
        noisy: positions of embeddings that equalled another one and were changed by a little noise.
    """

    vectors_ND: torch.Tensor
    weights_NV: torch.Tensor | None
    note: str
    noisy: frozenset[int] = frozenset()


# From old embeddings, a change of the vocabulary, and a seed.
Rule = Callable[[torch.Tensor, VocabularyChange, int], NewEmbeddings]


def random_normal(old_VD: torch.Tensor, change: VocabularyChange, seed: int = 0) -> NewEmbeddings:
    """Draw normal numbers with the mean and standard deviation of all old entries.

    Source: the new embeddings of Csaki et al., arXiv 2311.05741, are random.
    """
    shape = len(change.added), old_VD.shape[1]
    drawn_ND = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    vectors_ND = drawn_ND * old_VD.std() + old_VD.mean()
    return NewEmbeddings(vectors_ND, None, "drawn: normal, as all old entries")


def mean(old_VD: torch.Tensor, change: VocabularyChange, seed: int = 0) -> NewEmbeddings:
    """Give every new token the mean of all old embeddings.

    Source: Hewitt 2021, "Initializing new word embeddings for pretrained language models".
    """
    vectors_ND = old_VD.mean(dim=0).expand(len(change.added), -1)
    return NewEmbeddings(vectors_ND, None, f"mean of all {len(old_VD):,} embeddings")


def subword_mean(old_VD: torch.Tensor, change: VocabularyChange, seed: int = 0) -> NewEmbeddings:
    """Return the mean of the embeddings of the base tokens that spell the new token.

    Source: fast vocabulary transfer, Gee et al. 2022, arXiv 2402.09977.
    """
    shape, pieces = (len(change.added), len(old_VD)), [change.base_pieces[n] for n in change.added]
    new = np.repeat(np.arange(len(pieces)), [len(ids) for ids in pieces])
    old = np.fromiter(chain.from_iterable(pieces), dtype=np.int64)
    shares = torch.from_numpy(1 / np.bincount(new, minlength=shape[0])[new]).float()
    places = torch.from_numpy(np.stack([new, old]))
    weights_NV = torch.sparse_coo_tensor(places, shares, shape, check_invariants=False).coalesce()
    return NewEmbeddings(torch.sparse.mm(weights_NV, old_VD), weights_NV, "mean of its pieces")


METHODS: dict[str, Rule] = {"random": random_normal, "mean": mean, "subword_mean": subword_mean}


@dataclass(frozen=True)
class InitialEmbeddings:
    """Initial embeddings of the new tokens of a model.

    Attributes:
        method: name of the method.
        change: of the vocabulary.
        input: input embeddings.
        output: embeddings of the LM head; None with tied weights.
    """

    method: str
    change: VocabularyChange
    input: NewEmbeddings
    output: NewEmbeddings | None

    def provenance(self, token: int) -> pd.DataFrame:
        """Return the base tokens that the embeddings of a new token are made of.

        Args:
            token: id of the new token.

        Returns:
            One row per base token: `side` (input or output), its `id` and `token`, its `weight`,
            and a `note`. Random embeddings have only a note.

        Raises:
            ModelError: the token is not new.
        """
        if token not in self.change.added:
            raise ModelError(f"{token} is not the id of a new token: give one of change.added")
        place = list(self.change.added).index(token)
        rows: list[list[Any]] = []
        output = {"output": self.output} if self.output else {}
        for side, made in {"input": self.input, **output}.items():
            noise = "; with a little noise, because another embedding is the same"
            note = made.note + (noise if place in made.noisy else "")
            if made.weights_NV is None:
                rows.append([side, None, None, None, note])
                continue
            weights = made.weights_NV[place].coalesce()
            parts = zip(weights.indices()[0].tolist(), weights.values().tolist(), strict=True)
            rows += [[side, old, self.change.base_text(old), share, note] for old, share in parts]
        return pd.DataFrame(rows, columns=["side", "id", "token", "weight", "note"])


def new_embeddings(
    model: PreTrainedModel,
    change: VocabularyChange,
    *,
    method: str = "subword_mean",
    seed: int = 0,
    untie: bool = False,
) -> InitialEmbeddings:
    """Compute the embeddings of new tokens; the model does not change.

    Args:
        model: a causal language model whose tokenizer was changed.
        change: of the vocabulary.
        method: a name in `METHODS`.
        seed: for random methods.
        untie: also compute embeddings of the LM head if the weights are tied.

    Raises:
        ModelError: the method is unknown, the tokenizer does not belong to the model, or an
            embedding is not finite, zero, or the same as another one.
    """
    if method not in METHODS:
        raise ModelError(f"embedding method '{method}' is unknown: use one of {', '.join(METHODS)}")
    matrix, head = model.get_input_embeddings().weight, model.get_output_embeddings()
    highest = max(*change.new_to_old.values(), *change.removed)
    check_rows(change.tokenizer, {*change.new_to_old, *change.removed}, len(matrix))
    two = head is not None and (untie or not is_tied(model))

    def made(weight: torch.Tensor) -> NewEmbeddings:
        # Rows beyond the tokenizer are padding, which was never trained.
        known_VD = weight.detach()[: highest + 1].float().cpu()
        return _told_apart(METHODS[method](known_VD, change, seed), weight.detach(), change, seed)

    return InitialEmbeddings(method, change, made(matrix), made(head.weight) if two else None)


def initialise_embeddings(
    model: PreTrainedModel,
    change: VocabularyChange,
    *,
    method: str = "subword_mean",
    seed: int = 0,
    embeddings: InitialEmbeddings | None = None,
    untie: bool = False,
) -> PreTrainedModel:
    """Return a copy of a model with embeddings for a changed vocabulary.

    Both models share all other weights in memory; `train` makes its own copy. Old embeddings do not
    change by a bit. A padded matrix keeps its padding until new tokens need it. An added token of
    the base without an embedding gets the mean of all embeddings. A bias of the LM head gets the
    mean of the biases of its base tokens.

    Args:
        model: a causal language model whose tokenizer was changed.
        change: of the vocabulary.
        method: a name in `METHODS`.
        seed: for random methods.
        embeddings: from `new_embeddings`, in place of `method`. The LM head is untied if they
            include embeddings for it.
        untie: give the LM head its own weights.

    Raises:
        ModelError: in the cases of `new_embeddings`.
    """
    embeddings = embeddings or new_embeddings(model, change, method=method, seed=seed, untie=untie)
    before, tables = _matrices(model), _other_tables(model)
    rows = len(before[0])
    size = max(change.size, rows)
    grows = size != rows
    result = _copy(model, share_matrices=grows)
    if embeddings.output is not None and is_tied(model):
        head = result.get_output_embeddings()
        head.weight = torch.nn.Parameter(head.weight.detach().clone())
        declare_untied(result)
    if grows:
        result._init_weights = lambda module: None  # new rows are filled below
        result.resize_token_embeddings(size, mean_resizing=False)
        del result._init_weights
    biases = [subword_mean(b_V1.float().cpu(), change) for b_V1 in before[2:]]
    made = [embeddings.input, embeddings.output, *biases]
    for new, old_VD, filled in zip(_matrices(result), before, made, strict=False):
        if filled is not None:  # not the LM head's where weights are tied
            _fill(new, old_VD, filled, list(change.added))
    _fill_other_tables(result, change, tables)
    config = result.config.get_text_config()
    for name, value in vars(config).items():  # some have it under several names
        if "vocab" in name and (value == rows or "per_layer" in name):
            setattr(config, name, size)
    if getattr(config, "pad_token_id", None) in (-1, *change.added):  # rows that are not trained
        config.pad_token_id = change.tokenizer.pad_token_id
        result.get_input_embeddings().padding_idx = config.pad_token_id
    return result


def _other_tables(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Return other tables with one row per token, by name.

    Examples are embeddings of single layers, and lists of the experts of each token.
    """
    known = {id(layer.weight) for layer in token_layers(model)}
    rows, tables = len(model.get_input_embeddings().weight), {}
    for path, module in model.named_modules():
        embedding = isinstance(module, torch.nn.Embedding) and not POSITIONS.search(path)
        named = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        for name, table in named:
            if id(table) in known or table.ndim < 2:
                continue
            per_token = len(table) == rows or (embedding and "per_layer" in path)  # may be shorter
            if per_token and (embedding or not table.is_floating_point()):
                tables[f"{path}.{name}"] = table.detach()
    return tables


@torch.no_grad()
def _fill_other_tables(
    model: PreTrainedModel, change: VocabularyChange, tables: dict[str, torch.Tensor]
) -> None:
    """Write tables into a resized model. The row of a new token is the mean of the rows of its base
    tokens; for tables of indices, the row of its first base token.
    """
    size, added = len(model.get_input_embeddings().weight), list(change.added)
    for path, old in tables.items():
        place, _, name = path.rpartition(".")
        module, new = model.get_submodule(place), old.new_zeros(size, *old.shape[1:])
        if old.is_floating_point():
            _fill(new, old, subword_mean(old.float().cpu(), change), added)
            module.num_embeddings = size
        else:
            firsts = [change.base_pieces[token][0] for token in added]
            new[: len(old)], new[added] = old, old[firsts]
        learned = name in module._parameters
        setattr(module, name, torch.nn.Parameter(new, old.is_floating_point()) if learned else new)


def _matrices(model: PreTrainedModel) -> list[torch.Tensor]:
    """Return input embeddings, LM head, and the bias of the LM head as a column.

    The tensors keep their values if parameters of the model are replaced later.
    """
    weights = [layer.weight for layer in token_layers(model)]
    bias = getattr(model.get_output_embeddings(), "bias", None)
    columns = [] if bias is None else [bias.unsqueeze(1)]
    return [matrix.detach() for matrix in [*weights, *columns]]


def _fill(new: torch.Tensor, old: torch.Tensor, made: NewEmbeddings, added: list[int]) -> None:
    """Fill a matrix: old rows under the same ids, the mean as padding, then the new rows."""
    new[: len(old)] = old
    if len(padding := new[len(old) :]):
        padding[:] = old.float().mean(dim=0).to(new.dtype)
    new[added] = made.vectors_ND.to(new.device, new.dtype)


def _copy(model: PreTrainedModel, *, share_matrices: bool) -> PreTrainedModel:
    """Copy a model; the weights share memory with the original, because nothing writes to them.

    Matrices with one row per token are shared only if they will be replaced.
    """
    tables = [] if share_matrices else token_layers(model)
    filled = {id(weight) for layer in tables for weight in layer.parameters()}
    weights = (weight for weight in model.parameters() if id(weight) not in filled)
    shared = {id(w): torch.nn.Parameter(w.detach(), w.requires_grad) for w in weights}
    return copy.deepcopy(model, shared)


def _told_apart(
    made: NewEmbeddings, old: torch.Tensor, change: VocabularyChange, seed: int
) -> NewEmbeddings:
    """Return embeddings that are finite, not zero, and all different in the model's precision.

    Equal embeddings get a little noise. They occur for tokens with the same base tokens in another
    order, and for methods that give many tokens one embedding.
    """
    vectors_ND, remedy = made.vectors_ND.contiguous(), "choose another embeddings.method"
    added = [change.text(new) for new in change.added]
    not_finite_N = ~vectors_ND.isfinite().all(dim=1)
    for fault, bad_N in {"not finite": not_finite_N, "zero": (vectors_ND == 0).all(dim=1)}.items():
        if bad_N.any():
            name = added[int(bad_N.nonzero()[0])]
            raise ModelError(f"the new embedding of {name!r} is {fault}: {remedy}")
    kept = torch.tensor([index for index in change.new_to_old if index < len(old)])
    noisy = _repeated(old, kept, vectors_ND.to(old.dtype))
    generator = torch.Generator().manual_seed(seed)
    for block in torch.split(torch.tensor(noisy, dtype=torch.long), BLOCK):
        noise = normalize(torch.randn(len(block), vectors_ND.shape[1], generator=generator), dim=1)
        vectors_ND[block] += NOISE * noise * vectors_ND[block].norm(dim=1, keepdim=True)
    if noisy and (still := _repeated(old, kept, vectors_ND.to(old.dtype))):
        problem = f"token {added[still[0]]!r} has the same embedding as another token"
        raise ModelError(f"{problem}: {remedy}")
    return replace(made, vectors_ND=vectors_ND, noisy=frozenset(noisy))


def _repeated(old: torch.Tensor, kept: torch.Tensor, new: torch.Tensor) -> list[int]:
    """Return the indices of new embeddings that equal a kept old one or an earlier new one.

    Example:
        >>> new = torch.tensor([[1.0, 2.0], [-0.0, 0.0], [1.0, 2.0]])
        >>> _repeated(torch.zeros(1, 2), torch.tensor([0]), new)
        [1, 2]
    """
    vectors = list(_bytes_of(new))
    first = {vector: place for place, vector in reversed(list(enumerate(vectors)))}
    blocks = (_bytes_of(old[ids]) for ids in torch.split(kept, BLOCK))
    equal = first.keys() & chain.from_iterable(blocks)  # the new ones that equal an old one
    return [place for place, own in enumerate(vectors) if own in equal or first[own] < place]


def _bytes_of(matrix: torch.Tensor) -> Iterator[bytes]:
    whole = (matrix + 0.0).cpu().contiguous()  # -0.0 becomes 0.0, which it equals
    return (vector.tobytes() for vector in whole.view(torch.int16).numpy())
