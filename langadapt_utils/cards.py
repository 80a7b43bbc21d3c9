"""The model card: what others read first of an adapted model, filled from its recipe and its scores."""

from __future__ import annotations

from .evaluation.scores import Scores
from .intervals import percent, with_ends
from .languages import language_name
from .recipe import Recipe
from .sources import source_name
from .vocabulary.change import VocabularyChange

HUB = "hub:"


def model_card(recipe: Recipe, change: VocabularyChange, scores: Scores | None = None) -> str:
    """A Hugging Face model card in Markdown, its metadata in YAML.

    Args:
        recipe: of the run.
        change: of the vocabulary.
        scores: of the adapted model; the card says that it was not measured where there are none.
    """
    language = language_name(recipe.language)
    share = f"{recipe.mixture.english_share:.0%} of them English"
    return f"""---
{_metadata(recipe, scores)}
---
# {language} adaptation of {recipe.base}

Made with langadapt: {len(change.added):,} tokens for {language} were added to the tokenizer ({change.mode}), their rows
started by the method {recipe.embeddings.method}, and the model was trained on {recipe.training.budget_tokens:,} tokens,
{share}. Method: Csaki et al., arXiv 2311.05741, and later work.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer, model = (kind.from_pretrained("model") for kind in (AutoTokenizer, AutoModelForCausalLM))
```

## What was gained and lost

{_results(scores)}

## Text and licence

{language} from {", ".join(recipe.corpus.target)}; English from {", ".join(recipe.corpus.english)}. The licences of
the base model and of the text apply. Whatever the base model says wrongly or unfairly, this one may say too.
"""


def _metadata(recipe: Recipe, scores: Scores | None) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=source_name(row.source).replace(" ", "-"),
            dataset_config=row.language,
            dataset_split="held out",
            dataset_name=f"{language_name(row.language)}, {source_name(row.source)}",
            metric_type="bits_per_byte",
            metric_name="bits per byte",
            metric_value=round(row.after.value, 4),
        )
        for row in (scores.bits_per_byte().itertuples() if scores else [])
    ]
    data = ModelCardData(
        language=[recipe.language, "en"],
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["langadapt"],
        base_model=recipe.base.removeprefix(HUB).partition("@")[0] if recipe.base.startswith(HUB) else None,
        model_name=f"{language_name(recipe.language)} adaptation of {recipe.base}",
        eval_results=results or None,
    )
    return str(data.to_yaml()).strip()


def _results(scores: Scores | None) -> str:
    if not scores:
        return "Not measured yet."
    lines = ["| text | bits per byte before | after | change |", "|---|---|---|---|"]
    for row in scores.bits_per_byte().itertuples():
        text = f"{language_name(row.language)}, {source_name(row.source)}"
        lines.append(f"| {text} | {with_ends(row.before)} | {with_ends(row.after)} | {percent(row.change)} |")
    found = "\n".join(f"* {finding}" for finding in scores.findings())
    return "\n".join(lines) + f"\n\nBrackets hold 95 % intervals over held-out documents.\n\n{found}"
