r"""What each part of the recipe is worth: variants that differ in one thing, several seeds.

    python benchmarks/ablations.py --language hu --text hu.jsonl.xz --english en.jsonl.xz \
        --aligned flores.en.txt,flores.hu.txt --budget 10000000 --seeds 0,1 --record h100-10m
    python benchmarks/ablations.py --language hu --text hu.jsonl.xz --english en.jsonl.xz \
        --aligned flores.en.txt,flores.hu.txt --budget 50000000 --seeds 0,1 \
        --variants "25% English" --record h100-50m
    python benchmarks/ablations.py --language hu --profile cpu --tokens 1000 --budget 60000 \
        --seeds 0,1 --record cpu-shares \
        --variants "0% English,10% English,25% English,50% English,100% English"
    python benchmarks/ablations.py --language th --profile cpu --tokens 1000 --budget 120000 \
        --seeds 0 --interpolation 0.85 --documents 20 --kind options --record 120k \
        --variants "as every language,400 tokens,old embeddings at 0.3,as Thai until now"

Texts are JSON Lines with the field `text`, as `benchmarks/vocabulary.py` reads them, or the
profile's own where none are named. All variants are measured alike: on aligned sentences, without
those that occur in the training text, or on held-out documents where none are named. Results go to
`data/reference/KIND-LANGUAGE-NAME.json`; notebook 4 draws those of the kind `sweep`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embeddings import standing, write_sample
from record_reference import REFERENCE, commit

from langadapt_utils import hardware
from langadapt_utils.corpus.contamination import CONTAMINATED, find_contamination
from langadapt_utils.corpus.corpus import Corpus, load_corpus
from langadapt_utils.embeddings.initialise import initialise_embeddings
from langadapt_utils.experiments.comparison import sweep
from langadapt_utils.models import Base, load_base
from langadapt_utils.recipe import Recipe
from langadapt_utils.vocabulary.change import VocabularyChange
from langadapt_utils.vocabulary.extend import extend_vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SHARES = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0)
ONE_RATE = {"training.new_embeddings_lr_scale": 1.0, "training.old_embeddings_lr_scale": 1.0}
NO_TOKENS, PAPER = "no new tokens", "the paper's"
VARIANTS: dict[str, dict[str, Any]] = {
    **{f"{share:.0%} English": {"mixture.english_share": share} for share in SHARES},
    "English early": {"mixture.schedule": "early"},
    "English annealed": {"mixture.schedule": "annealed"},
    "one rate": ONE_RATE,
    "adapters": {"training.lora_rank": 64},
    "documents separate": {"mixture.separate_documents": True},
    "documents not separate": {"mixture.separate_documents": False},
    # Csaki et al., arXiv 2311.05741: the k least frequent tokens give way, embeddings are random,
    # one rate, 25 % English.
    PAPER: {
        "vocabulary.mode": "replace",
        "vocabulary.tokens": 5_000,
        "embeddings.method": "random",
        "mixture.english_share": 0.25,
        **ONE_RATE,
    },
    NO_TOKENS: {},
}
# What Thai alone had until it was measured (CHANGELOG.md), in parts.
OPTIONS: dict[str, dict[str, Any]] = {
    "as every language": {},
    "400 tokens": {"vocabulary.tokens": 400},
    "old embeddings at 0.3": {"training.old_embeddings_lr_scale": 0.3},
    "as Thai until now": {
        "vocabulary.tokens": 400,
        "training.old_embeddings_lr_scale": 0.3,
        "mixture.english_share": 0.15,
    },
}
# What no recipe holds: keyword arguments of `extend_vocabulary`.
VOCABULARY: dict[str, dict[str, Any]] = {PAPER: {"give_up": "frequency"}}


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}: {line}", file=sys.stderr, flush=True)


def aligned_texts(paths: Sequence[Path], corpus: Corpus) -> dict[str, list[str]]:
    """Read sentences that are aligned line by line, without those that would be trained on."""
    lines = [path.read_text(encoding="utf-8").splitlines() for path in paths]
    texts = dict(zip(("en", corpus.language), lines, strict=True))
    known: set[int] = set()
    for code, some in texts.items():
        shares = find_contamination(corpus.train[code]["text"], dict(enumerate(some)))
        known.update(shares.index[shares > CONTAMINATED])
    say(f"{len(known)} aligned sentences are in the training text and left out")
    return {
        code: [line for index, line in enumerate(some) if index not in known]
        for code, some in texts.items()
    }


class Beginnings:
    """What each variant starts from; what variants share is made once."""

    def __init__(self, base: Base, corpus: Corpus) -> None:
        self._base, self._corpus = base, corpus
        self._made: dict[str, tuple[PreTrainedModel, VocabularyChange]] = {}

    def __call__(
        self, name: str, recipe: Recipe
    ) -> tuple[PreTrainedModel, VocabularyChange, Corpus]:
        bare, given = name == NO_TOKENS, VOCABULARY.get(name, {})
        key = f"{bare} {given} {recipe.vocabulary} {recipe.embeddings}"
        if key not in self._made:
            self._made[key] = self._nothing_new() if bare else self._extended(recipe, given)
        return *self._made[key], self._corpus

    def _extended(
        self, recipe: Recipe, given: Mapping[str, Any]
    ) -> tuple[PreTrainedModel, VocabularyChange]:
        texts = {code: list(part["text"]) for code, part in self._corpus.train.items()}
        change = extend_vocabulary(
            self._base.tokenizer,
            texts[recipe.language],
            others={"en": texts["en"]},
            **recipe.vocabulary.arguments(),
            **given,
        )
        model = initialise_embeddings(
            self._base.model,
            change,
            method=recipe.embeddings.method,
            untie=recipe.embeddings.untie,
        )
        return model, change

    def _nothing_new(self) -> tuple[PreTrainedModel, VocabularyChange]:
        tokenizer = self._base.tokenizer
        kept = {index: index for index in range(len(tokenizer))}
        return self._base.model, VocabularyChange(
            tokenizer=tokenizer, mode="extend", new_to_old=kept, added={}, base_pieces={}
        )


def main() -> None:
    """Train the variants, print what was found and record it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--language", default="hu")
    parser.add_argument("--profile", default="gpu")
    parser.add_argument("--text", type=Path)
    parser.add_argument("--english", type=Path)
    parser.add_argument("--megabytes", type=float, default=40)
    parser.add_argument("--aligned", default="")
    parser.add_argument("--tokens", type=int, default=8_000)
    parser.add_argument("--budget", type=int, default=10_000_000)
    parser.add_argument("--interpolation", type=float, default=1.0)
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--documents", type=int, default=100)
    parser.add_argument("--record", default="")
    parser.add_argument("--kind", default="sweep")
    chosen = parser.parse_args()
    began = time.monotonic()
    common: dict[str, Any] = {
        "vocabulary.tokens": chosen.tokens,
        "training.budget_tokens": chosen.budget,
        "training.interpolation": chosen.interpolation,
    }
    named = {"target": chosen.text, "english": chosen.english}
    with tempfile.TemporaryDirectory() as folder:
        for option, path in named.items():
            if path:
                written = write_sample(path, chosen.megabytes, Path(folder))
                common[f"corpus.{option}"] = [str(written)]
        variants = {
            name: Recipe.profile(
                chosen.profile,
                language=chosen.language,
                overrides=common | (VARIANTS | OPTIONS)[name],
            )
            for name in chosen.variants.split(",")
        }
        corpus = load_corpus(next(iter(variants.values())).corpus, chosen.language)
    aligned = [Path(path) for path in chosen.aligned.split(",") if path]
    texts = aligned_texts(aligned, corpus) if aligned else None
    base = load_base(next(iter(variants.values())).base)
    found = sweep(
        variants,
        corpus,
        Beginnings(base, corpus),
        (base.model, base.tokenizer),
        texts=texts,
        documents=chosen.documents,
        seeds=[int(seed) for seed in chosen.seeds.split(",")],
        report=say,
    )
    print("| variant | language | bits per byte | against the base |\n|---|---|---|---|")
    for row in found.summary().itertuples():
        print(f"| {row.variant} | {row.language} | {standing(row)} |")
    print(*found.findings(), sep="\n")
    if chosen.record:
        about = {
            "commit": commit(),
            "data": {name: path.name if path else "the profile's" for name, path in named.items()},
            "measured_on": [path.name for path in aligned] or "held-out documents",
            "megabytes": chosen.megabytes,
            "seeds": chosen.seeds,
            "hardware": hardware.describe(),
            "seconds": round(time.monotonic() - began),
            "recipes": {name: _plain(recipe, named) for name, recipe in variants.items()},
        }
        found.save(REFERENCE / f"{chosen.kind}-{chosen.language}-{chosen.record}.json", about)


def _plain(recipe: Recipe, named: dict[str, Path | None]) -> dict[str, Any]:
    """A recipe whose texts have names, not paths."""
    content = recipe.model_dump()
    content["corpus"] |= {key: [path.name] for key, path in named.items() if path}
    return content


if __name__ == "__main__":
    main()
