r"""Seconds and peak memory of growing a vocabulary, against what users would pick instead.

    python benchmarks/vocabulary.py --text hu.jsonl.xz --language hu --megabytes 10,100 \
        --tokens 1000,8000,30000
    python benchmarks/vocabulary.py --text hu.jsonl.xz --language hu --quality en.txt,hu.txt \
        --english en.jsonl.xz

The text is JSON Lines with the fields `text` and, where there is one, `source`: sources are sampled
evenly, as one of them often dominates a file. Every measurement runs in a process of its own and
starts with texts in memory. The ways compared:

* `langadapt`: what `extend_vocabulary` does up to a tokenizer.json on disk;
* `langadapt-audited`: all of `extend_vocabulary`, with the curve and the audit that no other has;
* `python`: continued BPE in plain Python, with counts of pairs kept up to date, written for this;
* `scratch`: a new byte-level tokenizer of as many tokens by `tokenizers`, which gives up the base;
* `bpe-continue`: the package of that name, where it is installed.

`--quality` measures parity, and what English feels, on text that is aligned line by line.

Measured on 2 cores of AMD EPYC with SmolLM2's tokenizer. Hungarian: ELTeC novels, NerKor,
ParlaMint-HU, statutes. Thai: government news (thaigov), Wikipedia (iapp), constitutions. English:
Wikipedia 2018, ELTeC novels. Aligned text: FLORES-200 dev (CC BY-SA 4.0). Base parity: Hungarian
2.55, Thai 8.22.

| language | MB | new tokens | way | seconds | peak MB | times langadapt's seconds |
|---|---|---|---|---|---|---|
| hu | 10 | 16,000 | langadapt | 3.3 | 815 | 1.0 |
| hu | 10 | 16,000 | bpe-continue | 3.4 | 745 | 1.0 |
| hu | 20 | 16,000 | langadapt | 5.1 | 909 | 1.0 |
| hu | 20 | 16,000 | bpe-continue | 5.6 | 851 | 1.1 |
| hu | 100 | 16,000 | langadapt | 18.5 | 1,651 | 1.0 |
| hu | 100 | 16,000 | bpe-continue | 25.9 | 1,539 | 1.4 |

Medians of five in one run. In an earlier run of three, with 20 MB, `python` took 5.1 times the
seconds of `langadapt` (29.3 and 5.8), and Thai 13.7 seconds. All sizes, once each:

| language | MB | way | 1,000 tokens | 8,000 | 30,000 | peak MB |
|---|---|---|---|---|---|---|
| hu | 10 | langadapt | 3.9 s | 4.1 s | 5.0 s | 667 |
| hu | 10 | scratch | 3.9 s | 3.7 s | 4.0 s | 635 |
| hu | 100 | langadapt | 19.8 s | 29.5 s | 28.5 s | 1,492 |
| hu | 100 | scratch | 23.5 s | 31.2 s | 35.8 s | 1,697 |
| th | 10 | langadapt | 9.1 s | 9.4 s | 12.3 s | 968 |
| th | 10 | scratch | 12.7 s | 11.9 s | 13.2 s | 1,314 |
| th | 100 | langadapt | 70.1 s | 78.0 s | 85.8 s | 3,281 |
| th | 100 | scratch | 114.3 s | 125.0 s | 130.6 s | 8,337 |
| hu | 10 | langadapt | 3.3 s | 4.4 s | 5.4 s | 660 |
| hu | 10 | python | 11.2 s | 18.3 s | 24.2 s | 791 |
| hu | 10 | bpe-continue | 3.1 s | 3.6 s | 4.3 s | 613 |

The last three lines are a run of their own, so that they compare. Where there are not 100 MB of
text it comes again with other letters, so words repeat less than in text that is read on.
`langadapt-audited` takes about 1.5 times as long. `bpe-continue` was stopped on the Thai text after
more than two minutes. A stream of 1,048 MB of Hungarian, each copy of the file with words of its
own, took 207 seconds and 1,935 MB at most (8,000 tokens).

| change (10 MB of text) | parity | English kept of 997 | English tokens | unreachable | audit |
|---|---|---|---|---|---|
| hu, extend by 8,000 | 1.3325 | 989 | -0.030% | 0 | passes |
| hu, extend by 8,000, 99.9 % of English protected | 1.3593 | 995 | -0.008% | 0 | passes |
| hu, replace 5,000 | 1.4211 | 953 | +0.147% | 0 | passes |
| th, extend by 8,000 | 1.1308 | 997 | +0.000% | 0 | passes |
| th, extend by 8,000, 99.9 % of English protected | 1.1308 | 997 | +0.000% | 0 | passes |
| th, replace 5,000 | 1.2412 | 956 | +0.170% | 0 | passes |

English kept: sentences that keep their ids.
"""

from __future__ import annotations

import argparse
import heapq
import json
import lzma
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langadapt_utils.models import fetch_model, load_tokenizer
from langadapt_utils.recipe import BASE_MODEL
from langadapt_utils.vocabulary.extend import extend_vocabulary
from langadapt_utils.vocabulary.patterns import propose_repair
from langadapt_utils.vocabulary.select import candidates_for, learn_tokens
from langadapt_utils.vocabulary.tokenizer_json import Spec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def sample(path: Path, megabytes: float) -> list[str]:
    """Documents of a file, as evenly from its sources as they allow."""
    by_source: dict[str, list[str]] = defaultdict(list)
    with (
        lzma.open(path, "rt", encoding="utf-8")
        if path.suffix == ".xz"
        else path.open(encoding="utf-8") as file
    ):
        for line in file:
            row = json.loads(line)
            by_source[row.get("source", "")].append(row["text"])
    sizes = {
        source: sum(len(text.encode()) for text in texts) for source, texts in by_source.items()
    }
    left, chosen = int(megabytes * 1e6), []
    for place, source in enumerate(sorted(sizes, key=sizes.__getitem__)):
        quota = min(sizes[source], left // (len(sizes) - place))
        left -= quota
        texts = by_source[source]
        random.Random(0).shuffle(texts)
        for text in texts:
            if quota <= 0:
                break
            piece = text.encode()[:quota].decode("utf-8", "ignore")
            quota -= len(piece.encode())
            chosen.append(piece)
    while left > 0 and chosen:  # more is asked than there is: again, with other words
        texts = [text.replace("e", "é").replace("ก", "ข") for text in chosen]
        chosen += texts
        left -= sum(len(text.encode()) for text in texts)
    return chosen


def with_repaired_pattern(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> Spec:
    """Every way learns on the same words."""
    repair = propose_repair(tokenizer, texts)
    spec = Spec.of(tokenizer)
    return spec.with_pre_tokenizer(repair.pre_tokenizer) if repair else spec


def by_langadapt(
    tokenizer: PreTrainedTokenizerFast, texts: list[str], tokens: int, folder: Path
) -> None:
    spec = with_repaired_pattern(tokenizer, texts)
    words, limits = spec.count_words(texts), {"min_frequency": 2, "max_token_length": 16}
    learned = learn_tokens(spec, words, candidates_for(tokens), **limits)[:tokens]
    grown = json.dumps(spec.appended(learned).data)
    (folder / "tokenizer.json").write_text(grown, encoding="utf-8")


def by_langadapt_audited(
    tokenizer: PreTrainedTokenizerFast, texts: list[str], tokens: int, folder: Path
) -> None:
    extend_vocabulary(tokenizer, texts, tokens=tokens).save(folder)


def by_python(
    tokenizer: PreTrainedTokenizerFast, texts: list[str], tokens: int, folder: Path
) -> None:
    """Continued BPE as it is written down: count words, merge the most frequent pair, repeat."""
    spec = with_repaired_pattern(tokenizer, texts)
    cut = spec.whole.pre_tokenizer.pre_tokenize_str
    counts = Counter(word for text in texts for word, _ in cut(text))
    words = [[spec.bare.encode(word).tokens, count] for word, count in counts.items()]
    pairs: Counter[tuple[str, str]] = Counter()
    where: dict[tuple[str, str], set[int]] = defaultdict(set)
    for index, (pieces, count) in enumerate(words):
        for pair in pairwise(pieces):
            pairs[pair] += count
            where[pair].add(index)
    heap = [(-count, pair) for pair, count in pairs.items()]
    heapq.heapify(heap)
    merges: list[tuple[str, str]] = []
    while len(merges) < tokens and heap:
        claimed, pair = heapq.heappop(heap)
        if -claimed != pairs[pair]:
            if pairs[pair]:
                heapq.heappush(heap, (-pairs[pair], pair))
            continue
        merges.append(pair)
        changed = set()
        for index in where.pop(pair):
            pieces, count = words[index]
            joined: list[str] = []
            for piece in pieces:
                if joined and (joined[-1], piece) == pair:
                    joined[-1] += piece
                else:
                    joined.append(piece)
            for old in pairwise(pieces):
                pairs[old] -= count
            for new in pairwise(joined):
                pairs[new] += count
                where[new].add(index)
                changed.add(new)
            words[index][0] = joined
        pairs.pop(pair, None)
        for new in changed:
            heapq.heappush(heap, (-pairs[new], new))
    model = spec.data["model"]
    for left, right in merges:
        model["vocab"].setdefault(left + right, len(model["vocab"]))
        model["merges"].append([left, right])
    spec.whole.save(str(folder / "tokenizer.json"))


def by_scratch(
    tokenizer: PreTrainedTokenizerFast, texts: list[str], tokens: int, folder: Path
) -> None:
    from tokenizers import Tokenizer, models, trainers

    spec = with_repaired_pattern(tokenizer, texts)
    new = Tokenizer(models.BPE())
    new.pre_tokenizer = spec.whole.pre_tokenizer
    new.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=tokens + 256, show_progress=False)
    )
    new.save(str(folder / "tokenizer.json"))


def by_bpe_continue(
    tokenizer: PreTrainedTokenizerFast, texts: list[str], tokens: int, folder: Path
) -> None:
    from bpe_continue import continue_training

    tokenizer = load_tokenizer(fetch_model(BASE_MODEL))
    backend = tokenizer.backend_tokenizer
    if repair := propose_repair(tokenizer, texts):
        backend = Spec.of(tokenizer).with_pre_tokenizer(repair.pre_tokenizer).whole
    continue_training(backend, texts=texts, vocab_size=len(tokenizer) + tokens).save(
        str(folder / "tokenizer.json")
    )


WAYS: dict[str, Callable[[PreTrainedTokenizerFast, list[str], int, Path], None]] = {
    "langadapt": by_langadapt,
    "langadapt-audited": by_langadapt_audited,
    "python": by_python,
    "scratch": by_scratch,
    "bpe-continue": by_bpe_continue,
}


def measure_here(way: str, path: Path, megabytes: float, tokens: int) -> dict[str, Any]:
    """One measurement, in this process."""
    texts = sample(path, megabytes)
    tokenizer = load_tokenizer(fetch_model(BASE_MODEL))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        WAYS[way](tokenizer, texts, tokens, Path(folder))
        seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "text_megabytes": before / 1024, "peak_megabytes": after / 1024}


def measure(way: str, path: Path, megabytes: float, tokens: int) -> dict[str, Any]:
    """One measurement, in a fresh process."""
    command = [sys.executable, __file__, f"--one={way}", f"--text={path}"]
    command += [f"--megabytes={megabytes}", f"--tokens={tokens}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["no reason"])[-1]}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def timings(
    path: Path, language: str, sizes: list[float], numbers: list[int], ways: list[str], rounds: int
) -> None:
    columns = "language | MB | new tokens | way | seconds (median) | peak MB"
    print(f"| {columns} | times langadapt's seconds |")
    print("|---|---|---|---|---|---|---|")
    for size in sizes:
        for number in numbers:
            results: dict[str, list[dict[str, Any]]] = defaultdict(list)
            for _ in range(rounds):
                for way in ways:  # in turn, so that what else the machine does falls on all of them
                    results[way].append(measure(way, path, size, number))
            medians: dict[str, float] = {}
            for way, found in results.items():
                row = f"| {language} | {size:g} | {number:,} | {way}"
                if any("failed" in result for result in found):
                    print(f"{row} | {found[0].get('failed')} | | |")
                    continue
                medians[way] = sorted(one["seconds"] for one in found)[len(found) // 2]
                peak = max(one["peak_megabytes"] for one in found)
                ratio = medians[way] / medians.get("langadapt", medians[way])
                print(f"{row} | {medians[way]:.1f} | {peak:,.0f} | {ratio:.1f} |", flush=True)


def quality(
    path: Path, language: str, aligned: list[Path], english: Path, megabytes: float
) -> None:
    tokenizer = load_tokenizer(fetch_model(BASE_MODEL))
    texts = sample(path, megabytes)
    lines = {
        code: Path(file).read_text(encoding="utf-8").splitlines()
        for code, file in zip(("en", language), aligned, strict=True)
    }
    base = [
        encoding.ids
        for encoding in tokenizer.backend_tokenizer.encode_batch(
            lines["en"], add_special_tokens=False
        )
    ]
    columns = f"change | parity | English kept of {len(base)} | English tokens"
    print(f"| {columns} | unreachable | audit |")
    print("|---|---|---|---|---|---|")
    for name, (english_megabytes, options) in QUALITY.items():
        others = {"en": sample(english, english_megabytes)}
        change = extend_vocabulary(tokenizer, texts, others=others, **options)
        backend = change.tokenizer.backend_tokenizer
        encoded = {
            code: [
                encoding.ids for encoding in backend.encode_batch(part, add_special_tokens=False)
            ]
            for code, part in lines.items()
        }
        totals = {code: sum(map(len, ids)) for code, ids in encoded.items()}
        same = sum(old == new for old, new in zip(base, encoded["en"], strict=True))
        failed = [check.claim for check in change.audit if not check.passed]
        parity = totals[language] / totals["en"]
        print(
            f"| {language}, {name} | {parity:.4f} | {same} | "
            f"{totals['en'] / sum(map(len, base)) - 1:+.3%} | {len(change.unreachable)} | "
            f"{', '.join(failed) or 'passes'} |",
            flush=True,
        )


# A change, and megabytes of English beside it: rare tokens show only in much text.
QUALITY: dict[str, tuple[int, dict[str, Any]]] = {
    "extend by 8,000": (10, {"tokens": 8_000}),
    "extend by 8,000, 99.9 % of English protected": (
        10,
        {"tokens": 8_000, "protect": {"en": 0.999}},
    ),
    "replace 5,000": (30, {"tokens": 5_000, "mode": "replace"}),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--text", type=Path, required=True, help="JSON Lines of the target language, plain or .xz"
    )
    parser.add_argument("--language", default="hu")
    parser.add_argument("--megabytes", default="10")
    parser.add_argument("--tokens", default="1000,8000,30000")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--quality", help="aligned text of English and of the language: EN.txt,XX.txt"
    )
    parser.add_argument("--english", type=Path, help="JSON Lines of English, for --quality")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    sizes = [float(size) for size in chosen.megabytes.split(",")]
    numbers = [int(number) for number in chosen.tokens.split(",")]
    if chosen.one:
        print(json.dumps(measure_here(chosen.one, chosen.text, sizes[0], numbers[0])))
    elif chosen.quality:
        quality(chosen.text, chosen.language, chosen.quality.split(","), chosen.english, sizes[0])
    else:
        timings(chosen.text, chosen.language, sizes, numbers, chosen.ways.split(","), chosen.rounds)


if __name__ == "__main__":
    main()
