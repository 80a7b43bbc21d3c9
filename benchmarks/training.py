r"""Speed of training, setting by setting, against `transformers.Trainer` with its defaults.

    python benchmarks/training.py settings [--length 256] [--micro-batch 1024] [--batch 1024] \
        [--rounds 3]
    python benchmarks/training.py settings --length 1024 --micro-batch 32768 --batch 65536 \
        --teraflops 989   # one H100
    python benchmarks/training.py scaling

Each measurement is a process of its own, as some settings cannot be taken back; processes take
turns and medians are compared. Tokens per second are the median over training steps after the first
few; the seconds of those stand beside it. Utilisation is 6 operations per parameter and token over
the peak: that of the GPU's data sheet (`--teraflops`), or of a large matrix product here, now.

`settings` takes the base model with 8,000 made-up embeddings more and random tokens in documents of
300. `scaling` takes models of several sizes and shows seconds by number of tokens, and the time of
each further token.

Measured on 2 cores of AMD EPYC, torch 2.13, sequences of 256, micro-batches and batches of 1,024
tokens (one round):

| way | tokens/s | times the default | utilisation | first steps, s | peak GB |
|---|---|---|---|---|---|
| transformers.Trainer, defaults | 202 | 1.00 | 17% | 29.7 | 5.0 |
| langadapt, all off | 184 | 0.91 | 15% | 30.5 | 6.2 |
| + memory kept | 210 | 1.04 | 19% | 18.1 | 6.6 |
| + large pages | 217 | 1.08 | 20% | 17.9 | 5.7 |
| + bfloat16 | 640 | 3.18 | 57% | 8.2 | 5.7 |
| + layers compiled | 701 | 3.47 | 57% | 19.1 | 5.2 |
| + documents separate | 706 | 3.50 | 58% | 14.5 | 5.2 |

The Trainer's defaults are float32 here. Two more rounds of 12 steps: 53 and 51 % with bfloat16, 62
and 62 % with all settings. The peak is measured in each process and differs by 8 %. The kernels of
compiled layers were in torch's cache in these rounds (first steps 7 s). On a GPU nothing was
measured yet.

On 2 cores of an Intel Xeon with AMX, shared with others (one round):

| way | tokens/s | times the default | utilisation | first steps, s | peak GB |
|---|---|---|---|---|---|
| transformers.Trainer, defaults | 201 | 1.00 | 14% | 25.8 | 5.0 |
| + large pages | 201 | 1.00 | 15% | 20.2 | 6.0 |
| + bfloat16 | 372 | 1.85 | 26% | 12.8 | 5.7 |
| + layers compiled | 529 | 2.63 | 39% | 7.5 | 5.4 |
| + documents separate | 472 | 2.35 | 39% | 7.8 | 5.2 |

There, matrix products are faster and other operations slower than on AMD, so that compiled layers
save more. Compiling takes half a minute, before the first step. The peak that `utilisation`
refers to was between 0.7 and 1.2 TFLOP/s within an hour.

`scaling --rounds 2` on the AMD machine. Costs grow with tokens as a line does: the steps of one
run take the same time from the second to the last (0.33 to 0.41 s at 18 M), and what differs
between the halves is the machine's noise. With parameters they grow a little slower than a line, as
small models keep two cores less busy (tokens in the heading).

| parameters | s, 6,144 | s, 12,288 | s, 24,576 | ms/token, halves | ns/token/1,000 parameters |
|---|---|---|---|---|---|
| 18 M | 3.6 | 5.4 | 10.4 | 0.29, 0.41 | 20.9 |
| 48 M | 6.3 | 10.1 | 20.5 | 0.62, 0.84 | 15.9 |
| 130 M | 12.9 | 22.7 | 45.1 | 1.60, 1.82 | 13.4 |
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from typing import Any

import numpy as np
import torch
from embeddings import made_up_change
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

import langadapt_utils.training.train as training
from langadapt_utils import hardware
from langadapt_utils.embeddings.initialise import initialise_embeddings
from langadapt_utils.models import load_base
from langadapt_utils.recipe import BASE_MODEL, TrainingRecipe
from langadapt_utils.training.mixture import Mixture, Stream

DEFAULT = "transformers.Trainer, defaults"
PLAIN = {
    "precision": "float32",
    "compile_layers": False,
    "fused_loss": False,
    "keep": False,
    "pages": False,
    "separate": False,
}
STEPS = [
    ("langadapt, all off", {}),
    ("+ memory kept", {"keep": True}),
    ("+ large pages", {"pages": True}),
    ("+ bfloat16", {"precision": "bfloat16"}),
    ("+ layers compiled", {"compile_layers": True}),
    ("+ fused loss", {"fused_loss": True}),
    ("+ documents separate", {"separate": True}),
]
ONLY_ON_GPU, ONLY_ON_CPU = {"+ fused loss"}, {"+ memory kept", "+ large pages"}
SKIPPED = 3  # training steps that do not count


def ways() -> dict[str, dict[str, Any]]:
    """Return speed settings by name, each with one more than the one before."""
    on_gpu = hardware.device().type == "cuda"
    settings, named = dict(PLAIN), {}
    for name, more in STEPS:
        if name not in (ONLY_ON_CPU if on_gpu else ONLY_ON_GPU):
            settings |= more
            named[name] = dict(settings)
    return named


def made_up_mixture(vocabulary: int, sequences: int, length: int, separate: bool) -> Mixture:
    """Random tokens in documents of 300, a quarter of the sequences English."""
    rng = np.random.default_rng(0)
    streams = {}
    for language in ("hu", "en"):
        tokens = rng.integers(0, vocabulary, 300 * 200, dtype=np.int32)
        begins = np.arange(0, len(tokens) + 1, 300)
        streams[language] = Stream([tokens], begins, np.arange(200), length, 200)
    order = [("en" if index % 4 == 3 else "hu") for index in range(sequences)]
    sizes = np.ones(vocabulary, dtype=np.int64)
    return Mixture(streams, order, length, sizes, separate_documents=separate)


def measure(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Tokens per second and peak memory of one way."""
    base = load_base(BASE_MODEL)
    change = made_up_change(base.tokenizer, 8_000)
    model = initialise_embeddings(base.model, change, method="random")
    steps = arguments.steps + SKIPPED
    sequences = steps * arguments.batch // arguments.length
    if name == DEFAULT:
        speeds = default_trainer(
            model, made_up_mixture(change.size, sequences, arguments.length, False), arguments
        )
    else:
        settings = ways()[name]
        training.LONG = 0  # compile in short runs, too
        if not settings["keep"]:
            hardware.keep_freed_memory = lambda: False  # type: ignore[assignment]
        recipe = TrainingRecipe(
            batch_tokens=arguments.batch,
            micro_batch_tokens=arguments.micro_batch,
            learning_rate=1e-6,
            **{
                option: settings[option] for option in ("precision", "compile_layers", "fused_loss")
            },
        )
        mixture = made_up_mixture(change.size, sequences, arguments.length, settings["separate"])
        with tempfile.TemporaryDirectory() as folder:
            result = training.train(model, change, mixture, recipe, folder)
        speeds = [step["tokens_per_second"] for step in result.steps]
    speed = statistics.median(speeds[SKIPPED:])
    on_gpu = hardware.device().type == "cuda"
    peak = (
        torch.cuda.max_memory_allocated()
        if on_gpu
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    best = (
        arguments.teraflops * 1e12
        if arguments.teraflops
        else hardware.measured_flops(hardware.native_precision())
    )
    utilisation = 6 * model.num_parameters() * speed / best
    first = sum(arguments.batch / one for one in speeds[:SKIPPED])
    found = {"tokens_per_second": speed, "utilisation": utilisation, "first_seconds": first}
    return found | {"peak_gigabytes": peak / 1e9}


class ByLabels(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Sequences as the default Trainer takes them."""

    def __init__(self, mixture: Mixture) -> None:
        self._mixture = mixture

    def __len__(self) -> int:
        return len(self._mixture)

    def __getitem__(self, index: int) -> dict[str, Any]:
        ids = self._mixture[index]["input_ids"]
        return {"input_ids": ids, "labels": ids}


def default_trainer(model: Any, mixture: Mixture, arguments: argparse.Namespace) -> list[float]:
    """Speed of each step of `transformers.Trainer` with nothing set but the sizes."""
    speeds: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        last = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            now = time.perf_counter()
            speeds.append(arguments.batch / (now - self.last))
            self.last = now

    with tempfile.TemporaryDirectory() as folder:
        options = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=arguments.micro_batch // arguments.length,
            gradient_accumulation_steps=arguments.batch // arguments.micro_batch,
            max_steps=len(mixture) * arguments.length // arguments.batch,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        Trainer(
            model=model, args=options, train_dataset=ByLabels(mixture), callbacks=[Clock()]
        ).train()
    return speeds


def compare(arguments: argparse.Namespace) -> None:
    """Print a table of all ways."""
    names = [DEFAULT, *ways()]
    results: dict[str, list[dict[str, float]]] = defaultdict(list)
    sizes = [
        f"--{name}={getattr(arguments, name.replace('-', '_'))}"
        for name in ("length", "micro-batch", "batch")
    ]
    sizes += [f"--steps={arguments.steps}", f"--teraflops={arguments.teraflops}"]
    for _ in range(arguments.rounds):
        for way in names:
            command = [sys.executable, __file__, "one", "--way", way, *sizes]
            pages = ways().get(way, PLAIN)["pages"]
            variables = os.environ | {"THP_MEM_ALLOC_ENABLE": str(int(pages))}
            done = subprocess.run(command, capture_output=True, text=True, env=variables)
            if done.returncode:
                sys.exit(f"{way}: {done.stderr[-3000:]}")
            results[way].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"{way}: {results[way][-1]}", file=sys.stderr)
    machine = hardware.describe()
    print(
        f"{machine['device']}, {machine['cores']} cores, torch {machine['torch']}; "
        f"sequences of {arguments.length}, "
    )
    print(f"micro-batches of {arguments.micro_batch:,} tokens, batches of {arguments.batch:,}\n")
    print("| way | tokens/s | times the default | utilisation | first steps, s | peak GB |")
    print("|---|---|---|---|---|---|")
    medians = {
        way: {key: statistics.median(one[key] for one in found) for key in found[0]}
        for way, found in results.items()
    }
    for way, one in medians.items():
        times = one["tokens_per_second"] / medians[DEFAULT]["tokens_per_second"]
        speed, used, peak = one["tokens_per_second"], one["utilisation"], one["peak_gigabytes"]
        began = one["first_seconds"]
        print(f"| {way} | {speed:,.0f} | {times:.2f} | {used:.0%} | {began:.1f} | {peak:.1f} |")


SIZES = ((256, 6), (448, 10), (768, 12))  # width and layers
SCALED_STEPS = 6  # training steps of the shortest run


def scaling(arguments: argparse.Namespace) -> None:
    """Print the time of training by parameters and tokens, and that of each further token."""
    steps = [2**power * SCALED_STEPS for power in range(3)]
    tokens = [count * arguments.batch for count in steps]
    print("| parameters |" + "|".join(f" s for {count:,} tokens " for count in tokens), end="|")
    print(" ms a token, halves | ns a token and 1,000 parameters |\n" + "|---" * 6 + "|")
    change = made_up_change(load_base(BASE_MODEL).tokenizer, 100)
    for width, layers in SIZES:
        config = LlamaConfig(
            vocab_size=change.size,
            hidden_size=width,
            intermediate_size=3 * width,
            num_hidden_layers=layers,
            num_attention_heads=width // 64,
            tie_word_embeddings=True,
        )
        model = LlamaForCausalLM(config)
        recipe = TrainingRecipe(
            batch_tokens=arguments.batch, micro_batch_tokens=arguments.micro_batch
        )
        found: list[list[float]] = []
        for _ in range(arguments.rounds):
            found.append([])
            for count in tokens:
                mixture = made_up_mixture(
                    change.size, count // arguments.length, arguments.length, True
                )
                with tempfile.TemporaryDirectory() as folder:
                    found[-1].append(training.train(model, change, mixture, recipe, folder).seconds)
        seconds = [statistics.median(times) for times in zip(*found, strict=True)]
        first, second = (
            1e3 * (seconds[i + 1] - seconds[i]) / (tokens[i + 1] - tokens[i]) for i in (0, 1)
        )
        per_token = 1e9 * (seconds[2] - seconds[0]) / (tokens[2] - tokens[0])
        each = per_token / (model.num_parameters() / 1e3)
        print(
            f"| {model.num_parameters() / 1e6:.0f} M |"
            + "".join(f" {one:.1f} |" for one in seconds),
            end="",
        )
        print(f" {first:.2f}, {second:.2f} | {each:.1f} |", flush=True)


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["settings", "scaling", "one"])
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--micro-batch", type=int, default=1_024)
    parser.add_argument("--batch", type=int, default=1_024)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--teraflops", type=float, default=0.0, help="peak of the GPU; 0: measured")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.what == "one":
        print(json.dumps(measure(arguments.way, arguments)))
    else:
        {"settings": compare, "scaling": scaling}[arguments.what](arguments)


if __name__ == "__main__":
    main()
