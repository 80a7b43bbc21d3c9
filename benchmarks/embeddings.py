r"""Ways to start the embeddings of new tokens: speed, and bits per byte before and after training.

    python benchmarks/embeddings.py speed --tokens 30000
    python benchmarks/embeddings.py start --text hu.jsonl.xz --language hu --megabytes 20 \
        --tokens 16000 --english en.jsonl.xz --aligned flores.en.txt,flores.hu.txt
    python benchmarks/embeddings.py probe --text hu.jsonl.xz --language hu --megabytes 10 \
        --tokens 8000 --english en.jsonl.xz --steps 0,50 --seeds 0,1,2 --record hu

Texts are JSON Lines with the field `text`, as `benchmarks/vocabulary.py` reads them. `start`
measures all aligned sentences, and compares with public implementations where they are installed:
`tokenizer-adapter` (average), `mergekit` (tokensurgeon's sub-word mean) and the mean resizing of
`transformers`. `probe` trains on the text and measures on held-out documents, of which it takes the
beginning; without texts, it takes the profile's own. With `--record` the result goes to
`data/reference/embeddings-NAME.json`.

Measured on 2 cores of AMD EPYC with SmolLM2-135M (tied). 30,000 new tokens, closed-form methods:
0.7 to 1.1 seconds, and a peak of 1.5 new matrices over the model's
memory.

Right after initialisation, 16,000 Hungarian tokens learned on 20 MB (sources as in
`benchmarks/vocabulary.py`), bits per byte on the first 300 sentences of FLORES-200 dev (CC BY-SA
4.0):

| way | hu | en | seconds | hu, 99.9 % of English protected | en, the same |
|---|---|---|---|---|---|
| base model | 3.7588 | 1.3172 | | 3.7588 | 1.3172 |
| random | 6.5878 | 2.5773 | 0.4 | | |
| subword_mean | 3.0954 | 1.3360 | 0.5 | 3.2234 | 1.3298 |
| length_weighted | 3.0861 | 1.3381 | 0.6 | | |
| gated | 3.0627 | 1.3204 | 19.2 | 3.1563 | 1.3181 |
| gated, untied | 3.0597 | 1.3204 | 20.1 | | |
| tokenizer-adapter, average | 3.0954 | 1.3360 | 2.4 | | |
| mergekit, sub-word mean | | | 1.4 | 3.1937 | 1.3228 |
| transformers, mean resizing | | | 3.1 | 3.7509 | 1.3174 |

mergekit's means are other ones, and better here by accident: of a byte-level vocabulary it encodes
the printed form of the bytes (`Åĳ` for `ő`), not the text, so that 1,618 of the 16,000 tokens get
the pieces of their text (5,888 where it is told how spaces are marked; the table is without). The
others average 6.6 pieces in place of 3.7 and lie nearer to the mean of all embeddings (1.62 away,
not 1.93), where they draw less probability from other tokens. `gated` did that on purpose.

After 50 steps of 256 tokens, change of bits per byte in % against the sub-word mean, and 95 %
interval over 16 documents, each averaged over three seeds (one for `focus` and `distilled`):

| method | hu | en | th | en |
|---|---|---|---|---|
| random | +22.0 [+20.8, +23.4] | +7.4 [+5.5, +9.7] | +26.8 [+25.5, +28.2] | +11.5 [+9.5, +13.6] |
| by length | +12.0 [+9.2, +14.9] | +4.5 [+2.4, +6.7] | +2.2 [+1.1, +3.8] | +5.2 [+4.0, +6.8] |
| gated | -0.1 [-0.5, +0.2] | -1.9 [-2.5, -1.3] | +0.3 [+0.1, +0.5] | +2.7 [+1.9, +3.4] |
| focus | +8.5 [+7.6, +9.5] | -0.3 [-0.9, +0.2] | | |
| distilled | +0.5 [+0.2, +0.8] | -0.6 [-1.1, +0.0] | | |

On the cpu profile (hu, 20 documents), by length stands at +0.2 [+0.1, +0.3], gated at +0.0 [-0.3,
+0.2]. At the end of a run of 90 steps of 1,024 tokens (hu, one seed) `gated` stands at +0.2 %
[-0.1, +0.5], English at -0.2 % [-0.5, +0.0]. So no method is better than the mean after training
whatever the text, and the mean is the default. An earlier run of one seed gave length-weighted
means +1.2 % in Hungarian: at this rate and batch one seed says little. Right after initialisation,
random embeddings stand 3.9 (hu) and 2.0 (th) bits per byte above the mean, and `gated` below it in
Hungarian alone. `gated`, which taught new tokens when they are due, `focus`, `distilled` (with
the budget of its paper) and `length_weighted` were taken out because of these results.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from record_reference import REFERENCE, commit
from vocabulary import sample

from langadapt_utils import hardware
from langadapt_utils.corpus.corpus import load_corpus
from langadapt_utils.embeddings.initialise import METHODS, initialise_embeddings
from langadapt_utils.evaluation.likelihood import document_bits
from langadapt_utils.experiments.comparison import compare_methods
from langadapt_utils.intervals import percent
from langadapt_utils.models import Base, load_base
from langadapt_utils.recipe import Recipe
from langadapt_utils.vocabulary.change import VocabularyChange
from langadapt_utils.vocabulary.extend import extend_vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LONGEST = 1_500  # characters of a document that `probe` trains or measures on


def by_tokenizer_adapter(base: Base, change: VocabularyChange) -> PreTrainedModel:
    from tokenizer_adapter import TokenizerAdapter

    return TokenizerAdapter(method="average").adapt_from_pretrained(
        base.model, change.tokenizer, base.tokenizer
    )


def by_mergekit(base: Base, change: VocabularyChange) -> PreTrainedModel:
    from mergekit.tokenizer.normalization import normalize_token
    from mergekit.tokensurgeon.subword import subword_approximate

    model = initialise_embeddings(base.model, change, method="mean")
    tokens = [normalize_token(surface, {}, "Ġ") for surface in change.added.values()]
    matrix = model.get_input_embeddings().weight
    with torch.no_grad():
        matrix[list(change.added)] = subword_approximate(matrix, tokens, False, base.tokenizer)
    return model


def by_transformers(base: Base, change: VocabularyChange) -> PreTrainedModel:
    model = base.model.__class__.from_pretrained(base.folder)
    torch.manual_seed(0)
    model.resize_token_embeddings(change.size, mean_resizing=True)
    return model.eval()


PUBLIC: dict[str, Callable[[Base, VocabularyChange], PreTrainedModel]] = {
    "tokenizer-adapter": by_tokenizer_adapter,
    "mergekit": by_mergekit,
    "transformers": by_transformers,
}


def made_up_change(tokenizer: Any, tokens: int) -> VocabularyChange:
    """A change of any size: tokens that are spelled by two to six others."""
    size, generator = len(tokenizer), torch.Generator().manual_seed(0)
    lengths = torch.randint(2, 7, (tokens,), generator=generator).tolist()
    spelled = [
        tuple(torch.randint(300, size, (length,), generator=generator).tolist())
        for length in lengths
    ]
    surfaces = ["".join(tokenizer.convert_ids_to_tokens(ids)) for ids in spelled]
    return VocabularyChange(
        tokenizer=tokenizer,
        mode="extend",
        new_to_old={index: index for index in range(size)},
        added={size + place: f"{surface}{place}" for place, surface in enumerate(surfaces)},
        base_pieces={size + place: ids for place, ids in enumerate(spelled)},
    )


def measure_speed(method: str, tokens: int) -> dict[str, Any]:
    """Seconds of making the embeddings and the model, and peak memory over the base model's."""
    base = load_base(Recipe.profile("cpu").base)
    change = made_up_change(base.tokenizer, tokens)
    for parameter in base.model.parameters():
        parameter.sum()  # weights are mapped from the file, and in memory only once they are read
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.perf_counter()
    warnings.simplefilter("ignore")
    model = initialise_embeddings(base.model, change, method=method)
    seconds = time.perf_counter() - begin
    matrix = model.get_input_embeddings().weight
    added = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {
        "seconds": seconds,
        "added_mb": added,
        "matrix_mb": matrix.numel() * matrix.element_size() / 2**20,
    }


def speed(arguments: argparse.Namespace) -> None:
    """Print a table; every measurement has a process of its own."""
    print("| method | new tokens | seconds | peak memory over the model's, in new matrices |")
    print("|---|---|---|---|")
    for method in METHODS:
        command = [sys.executable, __file__, "one", "--method", method]
        command += ["--tokens", str(arguments.tokens)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        result = json.loads(done.stdout.splitlines()[-1])
        peak = result["added_mb"] / result["matrix_mb"]
        print(f"| {method} | {arguments.tokens:,} | {result['seconds']:.1f} | {peak:.2f} |")


def start(arguments: argparse.Namespace) -> None:
    """Print bits per byte right after initialisation, for each method and public implementation."""
    base = load_base(Recipe.profile("cpu").base)
    texts, english = (
        sample(path, arguments.megabytes) for path in (arguments.text, arguments.english)
    )
    protect = {"en": arguments.protect} if arguments.protect else {}
    change = extend_vocabulary(
        base.tokenizer, texts, tokens=arguments.tokens, others={"en": english}, protect=protect
    )
    lines = [
        Path(path).read_text(encoding="utf-8").splitlines() for path in arguments.aligned.split(",")
    ]
    sizes = [sum(len(line.encode()) for line in some) for some in lines]

    def row(name: str, model: PreTrainedModel, tokenizer: Any, seconds: float) -> None:
        values = [
            document_bits(model, tokenizer, some).sum() / size
            for some, size in zip(lines, sizes, strict=True)
        ]
        print(f"| {name} | {values[1]:.4f} | {values[0]:.4f} | {seconds:.1f} |", flush=True)

    print(f"| way | {arguments.language} | en | seconds |\n|---|---|---|---|")
    row("base model", base.model, base.tokenizer, 0.0)
    ways: dict[str, Callable[[], PreTrainedModel]] = {}
    for method in arguments.methods.split(","):
        name, _, untied = method.partition("/")
        ways[method] = lambda name=name, untied=untied: initialise_embeddings(
            base.model, change, method=name, untie=bool(untied)
        )  # type: ignore[misc]
    for public in filter(None, arguments.public.split(",")):
        ways[public] = lambda public=public: PUBLIC[public](base, change)  # type: ignore[misc]
    for name, make in ways.items():
        begin = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = make()
        row(name, model.eval(), change.tokenizer, time.perf_counter() - begin)


def write_sample(path: Path, megabytes: float, folder: Path, longest: int | None = None) -> Path:
    """Write a sample of a file's documents into a folder; of each, at most its beginning."""
    begun = folder / path.name.removesuffix(".xz")
    lines = [json.dumps({"text": text[:longest]}) for text in sample(path, megabytes)]
    begun.write_text("\n".join(lines), encoding="utf-8")
    return begun


def standing(row: Any) -> str:
    """Bits per byte of a row of a summary and its change, as two cells."""
    return f"{row.bits_per_byte.value:.4f} | {percent(row.change) if row.change else ''}"


def probe(arguments: argparse.Namespace) -> None:
    """Train a little from each start, print what was found, and record it if asked."""
    overrides: dict[str, Any] = {"vocabulary.protect_english": arguments.protect}
    if arguments.tokens:
        overrides["vocabulary.tokens"] = arguments.tokens
    texts = {"target": arguments.text, "english": arguments.english}
    with tempfile.TemporaryDirectory() as folder:
        for name, path in texts.items():
            if path:
                written = write_sample(path, arguments.megabytes, Path(folder), LONGEST)
                overrides[f"corpus.{name}"] = [str(written)]
        recipe = Recipe.profile("cpu", language=arguments.language, overrides=overrides)
        corpus = load_corpus(recipe.corpus, arguments.language)
    base = load_base(recipe.base)
    train = {code: list(corpus.train[code]["text"]) for code in (arguments.language, "en")}
    change = extend_vocabulary(
        base.tokenizer,
        train[arguments.language],
        others={"en": train["en"]},
        **recipe.vocabulary.arguments(),
    )
    comparison = compare_methods(
        base,
        change,
        corpus,
        recipe,
        methods=arguments.methods.split(","),
        steps=[int(number) for number in arguments.steps.split(",")],
        seeds=[int(number) for number in arguments.seeds.split(",")],
        documents=arguments.documents,
        batch_tokens=arguments.batch_tokens,
        report=lambda line: print(line, file=sys.stderr),
    )
    print("| variant | steps | language | bits per byte | against sub-word mean |")
    print("|---|---|---|---|---|")
    for one in comparison.summary().itertuples():
        print(f"| {one.variant} | {one.steps} | {one.language} | {standing(one)} |")
    print(*comparison.findings(), sep="\n")
    if arguments.record:
        path = REFERENCE / f"embeddings-{arguments.record}.json"
        at = commit()  # before a file is changed
        comparison.save(path)
        named = {name: [path.name] for name, path in texts.items() if path}
        plain_recipe = recipe.model_dump()
        plain_recipe["corpus"] |= named
        content = {"commit": at, "recipe": plain_recipe, "hardware": hardware.describe()}
        content |= {"megabytes": arguments.megabytes, "characters_of_a_document": LONGEST}
        content |= {"seeds": arguments.seeds} | json.loads(path.read_text(encoding="utf-8"))
        del content["documents"]
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["speed", "one", "start", "probe"])
    parser.add_argument("--text", type=Path)
    parser.add_argument("--english", type=Path)
    parser.add_argument("--language", default="hu")
    parser.add_argument("--megabytes", type=float, default=10)
    parser.add_argument("--tokens", type=int, default=8_000)
    parser.add_argument("--protect", type=float, default=0.0)
    parser.add_argument("--aligned", default="")
    parser.add_argument("--method", default="subword_mean")
    parser.add_argument("--methods", default="random,mean,subword_mean")
    parser.add_argument("--public", default="")
    parser.add_argument("--steps", default="0,50")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--batch-tokens", type=int, default=256)
    parser.add_argument("--documents", type=int, default=30)
    parser.add_argument("--record", default="")
    arguments = parser.parse_args()
    if arguments.what == "one":
        print(json.dumps(measure_speed(arguments.method, arguments.tokens)))
    else:
        {"speed": speed, "start": start, "probe": probe}[arguments.what](arguments)


if __name__ == "__main__":
    main()
