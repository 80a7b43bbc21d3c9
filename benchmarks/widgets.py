"""How long controls take to answer, for a page and a paragraph in each language, in milliseconds.

    python benchmarks/widgets.py [--rounds 20]

Tokens of a paragraph can be opened: its first answer also looks up their neighbours, later ones
remember those.

On two cores of an AMD EPYC no answer took longer than 24 ms for a page; for a paragraph the first
took 35 to 84 ms, later ones at most 18. They should stay below 100 ms.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from statistics import median

from langadapt_utils.corpus.corpus import load_corpus
from langadapt_utils.models import load_base
from langadapt_utils.recipe import Recipe
from langadapt_utils.vocabulary.extend import extend_vocabulary
from langadapt_utils.vocabulary.sizes import measure_sizes
from langadapt_utils.vocabulary.views import (
    PAGE,
    TokenFacts,
    token_explorer,
    vocabulary_size_widget,
)


def milliseconds(act: Callable[[], None]) -> float:
    began = time.perf_counter()
    act()
    return 1e3 * (time.perf_counter() - began)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    print("| control | language | characters | first answer, ms | later, median | slowest |")
    print("|---|---|---|---|---|---|")
    for language in ("hu", "th"):
        recipe = Recipe.profile("cpu", language=language)
        base, corpus = load_base(recipe.base), load_corpus(recipe.corpus, language)
        change = extend_vocabulary(base.tokenizer, corpus.train[language]["text"], tokens=1_000)
        before = TokenFacts(base.tokenizer)
        after = TokenFacts(change.tokenizer, change)
        texts, parallel = corpus.measuring_texts()
        sizes = measure_sizes(base, change, texts, language=language, parallel=parallel)
        for code, length in product(texts, (PAGE, PAGE // 9)):
            page = " ".join(texts[code])
            controls = {
                "explorer": token_explorer(
                    {"base": before, "adapted": after}, {code: "x"}
                ).controls.children[1],
                "vocabulary": vocabulary_size_widget(
                    sizes, before, after, text="x"
                ).controls.children[0],
            }
            for name, typed in controls.items():
                texts_typed = [page[: length + more] for more in range(rounds)]
                first, *later = (
                    milliseconds(partial(setattr, typed, "value", text)) for text in texts_typed
                )
                times = f"{first:.0f} | {median(later):.0f} | {max(later):.0f}"
                print(f"| {name} | {code} | {length:,} | {times} |")


if __name__ == "__main__":
    main()
