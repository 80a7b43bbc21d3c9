"""Reading text of any size: seconds and memory, beside `datasets` alone.

    python benchmarks/reading.py                    # 1 GB of text in one .jsonl.zst
    python benchmarks/reading.py --megabytes 100

The text is made of words of the built-in corpus in random order. Each way reads the file in a
process of its own with an empty cache. Memory is the largest that the process held of its own;
pages of a mapped file, which the kernel takes back when it needs them, do not count.

Measured on 2 cores of AMD EPYC, 1 GB of Hungarian text, median of five rounds:

| way | seconds | GB of memory | times `datasets` alone |
|---|---|---|---|
| langadapt | 10.5 | 0.17 | 0.97 |
| `datasets` alone | 10.8 | 0.25 | 1.00 |

Both parse JSON in C. We also count the texts and check their normal form, which takes longer where
letters lie above U+0300: 300 MB of Thai take 1.10 times as long as `datasets` alone. A block in
which a text has to be changed, or a line is bad, is read again line by line.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

OURS, ALONE = "langadapt", "datasets alone"
READERS = {
    OURS: (
        "from langadapt_utils.corpus.documents import read_source\n"
        "from langadapt_utils.recipe import CorpusRecipe\n"
        "documents, _ = read_source({path!r}, 'hu', CorpusRecipe())"
    ),
    ALONE: (
        "from datasets import load_dataset\n"
        "documents = load_dataset('json', data_files={path!r}, split='train', cache_dir={cache!r})"
    ),
}
WATCH = """
import re, threading, time
held = [0]
def watch():
    while True:
        with open("/proc/self/status") as file:
            held.append(int(re.search(r"RssAnon:\\s+(\\d+)", file.read())[1]))
        time.sleep(0.02)
threading.Thread(target=watch, daemon=True).start()
"""
COUNTED = "\nprint(len(documents), sum(len(text) for text in documents['text']))"


def write_text(path: Path, megabytes: int) -> None:
    """Write a .jsonl.zst with documents of some 2 kB."""
    import zstandard

    from langadapt_utils.corpus.documents import built_in_documents

    words = " ".join(built_in_documents("hu")["text"]).split()
    generator, size, number = random.Random(0), 0, 0
    with zstandard.open(path, "wt", encoding="utf-8") as file:
        while size < megabytes * 1e6:
            text = " ".join(generator.choices(words, k=260))
            number, size = number + 1, size + len(text.encode())
            row = {"id": str(number), "text": text}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def measured(code: str, cache: Path) -> tuple[float, float, str]:
    """Run code in a process; return its seconds, its largest memory in GB, and what it printed."""
    watched = WATCH + code + "\nprint(max(held))"
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", watched],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"LANGADAPT_CACHE": str(cache), "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"},
    )
    counted, kilobytes = done.stdout.splitlines()[-2:]
    return time.perf_counter() - began, int(kilobytes) * 1024 / 1e9, counted


def main() -> None:
    """Print a table: the median of several rounds, taken in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in READERS}
    memory: dict[str, list[float]] = {name: [] for name in READERS}
    counts = set()
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "text.jsonl.zst"
        write_text(path, chosen.megabytes)
        print(f"{chosen.megabytes:,} MB of text, {path.stat().st_size / 1e6:,.0f} MB compressed")
        for _ in range(chosen.rounds):
            for name, code in READERS.items():
                with tempfile.TemporaryDirectory(dir=scratch) as cache:
                    filled = code.format(path=str(path), cache=cache) + COUNTED
                    took, held, counted = measured(filled, Path(cache))
                seconds[name].append(took)
                memory[name].append(held)
                counts.add(counted)
    if len(counts) != 1:
        raise SystemExit(f"they read different text: {counts}")
    print("\n| way | seconds | GB of memory | times `datasets` alone |\n|---|---|---|---|")
    alone = statistics.median(seconds[ALONE])
    for name in READERS:
        middle = statistics.median(seconds[name])
        print(f"| {name} | {middle:.1f} | {max(memory[name]):.2f} | {middle / alone:.2f} |")


if __name__ == "__main__":
    main()
