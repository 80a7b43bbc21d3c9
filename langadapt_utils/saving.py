"""The adapted model as others load it: a stock Hugging Face folder with a model card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .changes import VocabularyChange
from .corpus import language_name
from .sources import name_portable_class
from .workspace import PUBLISHED, Workspace

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def save_adapted(
    model: PreTrainedModel, steps: list[dict[str, Any]], change: VocabularyChange, run: Workspace, folder: Path
) -> None:
    """Write the adapted model as a stock Hugging Face folder with a model card, and the log of its training.

    Args:
        model: after training.
        steps: the records of its training.
        change: of the vocabulary; its tokenizer goes with the model.
        run: whose recipe the card names.
        folder: of the training stage, as `Workspace.writing` gives it; its checkpoints are deleted.
    """
    published = folder / PUBLISHED / "model"
    model.save_pretrained(published)
    change.tokenizer.save_pretrained(published)
    name_portable_class(published)
    (published / "README.md").write_text(_model_card(run, change), encoding="utf-8")
    (folder / "steps.json").write_text(json.dumps(steps), encoding="utf-8")
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def _model_card(run: Workspace, change: VocabularyChange) -> str:
    recipe = run.recipe
    language = language_name(recipe.language)
    return f"""---
language: [{recipe.language}, en]
library_name: transformers
pipeline_tag: text-generation
tags: [langadapt]
---
# {language} adaptation of {recipe.base}

Made with langadapt: {len(change.added):,} tokens for {language} were added to the tokenizer ({change.mode}), their rows
started by the method {recipe.embeddings.method}, and the model was trained on {recipe.training.budget_tokens:,} tokens,
{recipe.mixture.english_share:.0%} of them English. Method: Csaki et al., arXiv 2311.05741, and later work.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer, model = (kind.from_pretrained("model") for kind in (AutoTokenizer, AutoModelForCausalLM))
```

Text: {language} from {", ".join(recipe.corpus.target)}; English from {", ".join(recipe.corpus.english)}. The licence of
the base model and of the text apply. What was gained and lost is in `report.html` of the run.
"""
