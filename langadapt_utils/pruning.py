"""Which base tokens to give up, where new ones take their places.

Source of leaf pruning: Purason et al., arXiv 2512.03989. Source of giving up the least frequent: Csaki et al.,
arXiv 2311.05741.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence

from .errors import VocabularyError
from .recipe import GiveUp
from .specs import NewToken, Spec


def choose_leaves(
    spec: Spec, used: Mapping[str, int], in_target: Mapping[str, int], chosen: Sequence[NewToken], give_up: GiveUp
) -> tuple[dict[int, str], dict[int, int]]:
    """Choose base tokens to give up, as many as are chosen to come: no surviving merge needs them.

    The least used goes first; ties go to the token less used in the target language, then to the one learned last.

    Args:
        spec: the base tokenizer.
        used: uses of each token in the text that must not suffer.
        in_target: uses in the target language.
        chosen: the tokens that are to come, whose parts must stay.
        give_up: `usage` lets what a token was used for fall to its parts when it goes; `frequency` does not.

    Returns:
        Surfaces and own uses of the tokens to give up, by id.
    """
    vocabulary = spec.vocab
    made: dict[str, list[str]] = {}
    needed = Counter(part for token in chosen for part in token.parts or ())
    for left, right in spec.merges():
        made.setdefault(left + right, []).extend((left, right))
        needed.update((left, right))
    if spec.family == "Unigram":
        made = {token: [] for token in vocabulary if len(token) > 1 and vocabulary[token] not in spec.boundaries}
        needed = Counter()
    uses, target_uses = Counter(used), Counter(in_target)

    def entry(token: str) -> tuple[int, int, int, str]:
        return uses[token], target_uses[token], -vocabulary[token], token

    stay = spec.special.keys() | {token for token, index in vocabulary.items() if index in spec.boundaries}
    leaves = [entry(token) for token in made if token in vocabulary and token not in stay and not needed[token]]
    heapq.heapify(leaves)
    removed: dict[int, str] = {}
    while leaves and len(removed) < len(chosen):
        of_token, of_target, _, token = heapq.heappop(leaves)
        if (of_token, of_target) != (uses[token], target_uses[token]):
            continue  # an outdated entry
        removed[vocabulary[token]] = token
        for part in made[token]:
            needed[part] -= 1
            if give_up == "usage":
                uses[part] += of_token
                target_uses[part] += of_target
        for part in set(made[token]):
            if not needed[part] and part in made and part not in stay:
                heapq.heappush(leaves, entry(part))
    if len(removed) < len(chosen):
        raise VocabularyError(
            f"{len(chosen)} base tokens were to be replaced, but only {len(removed)} can be given up: "
            "ask for fewer with vocabulary.tokens"
        )
    return removed, {old: used.get(token, 0) for old, token in removed.items()}
