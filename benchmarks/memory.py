"""How much memory each stage takes: a random model of 0.7 billion parameters in bfloat16.

    python benchmarks/memory.py                     # a table, each step in a process of its own
    python benchmarks/memory.py --only load,bits
    python benchmarks/memory.py --text 10,100,1000  # notebooks 1 to 4 on megabytes of text

W is the size of the saved weights. What is measured is the largest memory that the process held
(resident, with what it maps from files), Python and its libraries included. The limits are ours:
what a step may take of W, a constant for the libraries, what learns, and the activations, which
are counted. With --text, the model is tiny, so that what is measured is what the text takes: the
largest process of each notebook, and the seconds of processors, which do not count what else the
machine does. The profile `smoke` trains for a few steps on the first documents, so the row
`mixture` packs a whole text.

Training keeps freed memory for speed while there is enough of it (`return_freed_memory`). So it is
measured twice: on this machine, and as on a machine that has no more memory than the limit.

Measured without --text on 2 cores of an Intel Xeon with AMX, W = 1.26 GB:

| step | GB | limit | held | fastest step, s |
|---|---|---|---|---|
| load | 2.20 | 2.21 | yes |  |
| embeddings | 2.43 | 2.59 | yes |  |
| bits | 2.33 | 2.84 | yes |  |
| adapters | 5.00 | 4.56 | no | 2.9 |
| adapters, memory scarce | 4.37 | 4.56 | yes | 3.7 |
| full | 12.18 | 12.06 | no | 4.4 |
| full, memory scarce | 11.33 | 12.06 | yes | 5.0 |

Measured with --text on 2 cores of AMD EPYC, other work beside; GB, and seconds of processors. Each
notebook takes some 30 seconds without much text; the rest grows no faster than a line. The row
`mixture` for 100 and 1,000 MB was measured later, on a machine with 0.4 times the speed.

| stage | 10 MB | 100 MB | 1,000 MB |
|---|---|---|---|
| 01 | 1.32, 41 | 1.49, 76 | 2.73, 447 |
| 02 | 1.73, 85 | 1.91, 138 | 2.95, 505 |
| 03 | 1.20, 27 | 1.26, 31 | 2.11, 31 |
| 04 | 1.35, 32 | 1.48, 46 | 2.41, 190 |
| mixture | 0.72, 9 | 0.84, 83 | 2.27, 760 |
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from langadapt_utils import hardware
from langadapt_utils.corpus.corpus import Corpus, load_corpus
from langadapt_utils.embeddings.initialise import initialise_embeddings
from langadapt_utils.evaluation.likelihood import bits_per_byte
from langadapt_utils.hardware import autocast, native_precision
from langadapt_utils.models import (
    Base,
    fetch_model,
    load_base,
    load_model,
    load_tokenizer,
    save_model,
)
from langadapt_utils.recipe import BASE_MODEL, Recipe
from langadapt_utils.training.mixture import mix
from langadapt_utils.training.optimizer import add_adapters
from langadapt_utils.training.train import train
from langadapt_utils.vocabulary.change import VocabularyChange
from langadapt_utils.vocabulary.extend import extend_vocabulary

LAYERS, WIDTH, INNER, LENGTH = 22, 1_536, 4_096, 256
RANK, STEPS = 16, 3
RECIPE = Recipe.profile(
    "cpu",
    overrides={
        "mixture.sequence_length": LENGTH,
        "training.batch_tokens": LENGTH,
        "training.micro_batch_tokens": LENGTH,
        "training.budget_tokens": STEPS * LENGTH,
        "training.learning_rate": 1e-5,
    },
)


def prepare(folder: Path) -> None:
    """Write a base and what its new embeddings make of it."""
    tokenizer, corpus = load_tokenizer(fetch_model(BASE_MODEL)), _corpus()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=12,
        num_key_value_heads=4,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    change = extend_vocabulary(tokenizer, corpus.train["hu"]["text"], tokens=1_000)
    (folder / "change").mkdir()
    change.save(folder / "change")
    start = initialise_embeddings(model, change)
    save_model(start, change.tokenizer, folder / "start", folder / "base")


def _corpus() -> Corpus:
    return load_corpus(RECIPE.corpus, "hu")


def peak_bytes() -> int:
    """Return the largest memory that this process held.

    `getrusage` would count what the process held that started this one.
    """
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024


def load(folder: Path) -> int:
    return _read(load_base(str(folder / "base")))


def embeddings(folder: Path) -> int:
    base = load_base(str(folder / "base"))
    _read(base)
    start = initialise_embeddings(base.model, VocabularyChange.load(folder / "change"))
    return sum(int(weight.isfinite().all()) for weight in start.parameters())


def bits(folder: Path) -> int:
    base = load_base(str(folder / "base"))
    texts = _corpus().heldout["hu"]["text"][:4]
    return int(bits_per_byte(base.model, base.tokenizer, texts).units)


def adapters(folder: Path) -> int:
    return _trained(folder, rank=RANK)


def full(folder: Path) -> int:
    return _trained(folder, rank=0)


def _read(base: Base) -> int:
    """Touch every weight: they are mapped from a file, and in memory only once they are read."""
    return sum(int(weight.isfinite().all()) for weight in base.model.parameters())


def activations(folder: Path, rank: int) -> int:
    """Return the bytes that one step keeps for its gradients, without weights in any precision."""
    model = load_model(folder / "start").train()
    model.set_attn_implementation("eager")  # as training has it for short sequences on a CPU
    if not rank:
        model.float()
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    shapes = {tuple(sorted(parameter.shape)) for parameter in model.parameters()}
    if rank:
        add_adapters(model, rank)
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights and tuple(sorted(tensor.shape)) not in shapes:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        autocast(native_precision(), "cpu"),
    ):
        ids = torch.arange(LENGTH)[None]
        loss = model(input_ids=ids, labels=ids).loss
    return sum(kept.values()) if loss.isfinite() else 0


def _trained(folder: Path, *, rank: int) -> int:
    """Train for a few steps; return the milliseconds of the fastest one."""
    change = VocabularyChange.load(folder / "change")
    budget = RECIPE.training.budget_tokens
    mixture = mix(_corpus(), change.tokenizer, RECIPE.mixture, budget_tokens=budget)
    recipe = RECIPE.training.model_copy(update={"lora_rank": rank})
    with tempfile.TemporaryDirectory() as checkpoints:
        steps = train(folder / "start", change, mixture, recipe, checkpoints).steps
    return round(1_000 * LENGTH / max(step["tokens_per_second"] for step in steps))


def learning(rank: int) -> float:
    """Bytes of what learns: 16 a number, of all weights or of embeddings and adapters."""
    vocabulary = 50_152 * WIDTH
    widths = [(WIDTH, WIDTH), (WIDTH, 512), (WIDTH, 512), (WIDTH, WIDTH)]
    widths += [(WIDTH, INNER), (WIDTH, INNER), (INNER, WIDTH)]
    if rank:
        return 16.0 * (vocabulary + LAYERS * sum(rank * (a + b) for a, b in widths))
    return 17.0 * (vocabulary + LAYERS * sum(a * b for a, b in widths))


PYTHON, TEXT_LIMIT = 0.7e9, 3e9
RANKS = {"adapters": RANK, "full": 0}
# By step: what it does, and the largest memory it may take beside activations, from W.
LIMITS: dict[str, tuple[Callable[[Path], int], Callable[[float], float]]] = {
    "load": (load, lambda w: 1.2 * w + PYTHON),
    "embeddings": (embeddings, lambda w: 1.5 * w + PYTHON),
    "bits": (bits, lambda w: 1.3 * w + 1.2e9),
    "adapters": (adapters, lambda w: 1.5 * w + learning(RANK) + PYTHON),
    "full": (full, lambda w: learning(0) + PYTHON),
}


def mixture(text: Path) -> int:
    """Encode and pack a whole text, and read from it as training does."""
    recipe = Recipe.profile("gpu", overrides={"corpus.target": [str(text)]})
    options = recipe.mixture.model_copy(update={"english_share": 0.0})
    corpus, tokenizer = load_corpus(recipe.corpus, "hu"), load_tokenizer(text.parent / "tiny")
    packed = mix(corpus, tokenizer, options, budget_tokens=text.stat().st_size)
    if packed.streams["hu"].documents > len(packed.streams["hu"].visits):
        raise SystemExit("not all of the text was packed")
    return sum(int(packed[index]["bytes"]) for index in range(1_000))


def write_text(path: Path, megabytes: float) -> None:
    """Write documents of eight sentences each, of 300,000 words as frequent as Zipf says."""
    draw = random.Random(0)
    parts = [a + b for a in "bcdfghjklmnprstvz" for b in "aáeéiíoóöőuúüű"]
    words = ["".join(draw.choices(parts, k=draw.randint(1, 5))) for _ in range(300_000)]
    odds = list(itertools.accumulate(1 / (rank + 10) for rank in range(len(words))))
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < megabytes * 1e6:
            drawn = draw.choices(words, cum_weights=odds, k=9_600)
            lines = [" ".join(drawn[place : place + 12]) for place in range(0, len(drawn), 12)]
            for place in range(0, len(lines), 8):
                text = ". ".join(lines[place : place + 8])
                file.write(json.dumps({"text": f"{text}."}, ensure_ascii=False) + "\n")


def measure_text(folder: Path, sizes: Sequence[float]) -> None:
    """Print what each notebook takes on texts of several sizes."""
    tokenizer = load_tokenizer(fetch_model(BASE_MODEL))
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "tie_word_embeddings": True}
    config = LlamaConfig(
        vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=0, **shape, **heads
    )
    LlamaForCausalLM(config).save_pretrained(folder / "tiny")
    tokenizer.save_pretrained(folder / "tiny")
    os.environ["LANGADAPT_CACHE"] = str(folder / "cache")
    print("| MB | stage | GB | limit | held | s | s per MB |\n|---|---|---|---|---|---|---|")
    for size in sizes:
        write_text(text := folder / f"{size:g}.jsonl", size)
        for stage in ("01", "02", "03", "04", "mixture"):
            command = [str(Path(sys.executable).with_name("langadapt")), "run", stage]
            command += ["--profile", "smoke", "--run", str(folder / f"run-{size:g}")]
            command += ["-p", f"corpus.target={text}", "-p", f"base={folder / 'tiny'}"]
            if stage == "mixture":
                command = [sys.executable, __file__, "--step", stage, "--folder", str(text)]
            with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
                _, status, used = os.wait4(process.pid, 0)  # with the processes that it started
                process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                raise SystemExit(f"{stage} failed on {size:g} MB")
            peak, seconds = used.ru_maxrss * 1024, used.ru_utime + used.ru_stime
            held = f"{TEXT_LIMIT / 1e9:.2f} | {'yes' if peak <= TEXT_LIMIT else 'no'}"
            spent = f"{seconds:.0f} | {seconds / size:.2f}"
            print(f"| {size:g} | {stage} | {peak / 1e9:.2f} | {held} | {spent} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(LIMITS))
    parser.add_argument("--step", default="", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--memory", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--text", default="", metavar="MB,MB", help="measure texts of these sizes")
    chosen = parser.parse_args()
    if chosen.text:
        with tempfile.TemporaryDirectory() as scratch:
            measure_text(Path(scratch), [float(size) for size in chosen.text.split(",")])
        return
    if chosen.memory:
        hardware.MEMORY_LIMIT = chosen.memory
    if chosen.step:
        step = mixture if chosen.step == "mixture" else LIMITS[chosen.step][0]
        made = step(chosen.folder)
        found = {"made": made, "peak": peak_bytes(), "activations": 0}
        if chosen.step in RANKS:
            found["activations"] = activations(chosen.folder, RANKS[chosen.step])
        print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        prepare(folder)
        size = sum(path.stat().st_size for path in (folder / "base").glob("*.safetensors"))
        print(f"W = {size / 1e9:.2f} GB\n| step | GB | limit | held | fastest step, s |")
        print("|---|---|---|---|---|")
        for name in chosen.only.split(","):
            found = _measured(name, folder)
            limit = LIMITS[name][1](size) + found["activations"]
            print(_row(name, found, limit), flush=True)
            if name in RANKS:
                (scarce := folder / "memory.txt").write_text(str(int(limit)), encoding="utf-8")
                found = _measured(name, folder, "--memory", str(scarce))
                print(_row(f"{name}, memory scarce", found, limit), flush=True)


def _measured(name: str, folder: Path, *more: str) -> dict[str, int]:
    command = [sys.executable, __file__, "--step", name, "--folder", str(folder), *more]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def _row(name: str, found: dict[str, int], limit: float) -> str:
    peak, seconds = found["peak"], f"{found['made'] / 1e3:.1f}" if found["activations"] else ""
    held = "yes" if peak <= limit else "no"
    return f"| {name} | {peak / 1e9:.2f} | {limit / 1e9:.2f} | {held} | {seconds} |"


if __name__ == "__main__":
    main()
