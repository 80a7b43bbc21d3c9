"""Take a pretrained English language model to a new language: better tokens, and English kept.

The verbs are loaded when first used, so that the import itself is fast and needs no torch.

Example:
    >>> import langadapt_utils as la
    >>> recipe = la.Recipe.profile("cpu", language="hu")
    >>> recipe.mixture.english_share
    0.25
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "checks": ["check_exercise", "check"],
    "corpus.contamination": ["check_contamination", "find_contamination"],
    "corpus.corpus": ["Corpus", "built_in_corpus", "load_corpus"],
    "corpus.documents": ["read_documents"],
    "corpus.items": ["load_items", "pattern_items"],
    "display.html": ["cuts_html", "show", "table_html", "tokens_html"],
    "embeddings.initialise": [
        "InitialEmbeddings",
        "METHODS",
        "initialise_embeddings",
        "new_embeddings",
    ],
    "embeddings.views": ["neighbour_table", "neighbours_widget", "plot_map", "plot_norms"],
    "errors": ["LangadaptError", "VocabularyError"],
    "evaluation.evaluate": ["evaluate", "generate", "score_items", "text_quality"],
    "evaluation.forgetting": ["kl_divergence", "measure_gains", "weight_drift"],
    "evaluation.harness": ["task_folder", "with_tasks"],
    "evaluation.likelihood": ["bits_per_byte"],
    "evaluation.scores": ["Finding", "Scores"],
    "evaluation.views": ["plot_accuracy", "plot_changes", "plot_domains", "plot_drift"],
    "experiments.comparison": [
        "Comparison",
        "Sweep",
        "compare_methods",
        "interpolation_sweep",
        "english_share_variants",
        "recorded",
        "recorded_sweeps",
        "sweep",
    ],
    "experiments.views": ["plot_comparison", "plot_sweep", "sweep_widget"],
    "fertility": ["FertilityReport", "measure_fertility", "plot_bytes", "plot_fertility"],
    "hardware": ["describe", "device", "estimate_training_time", "native_precision"],
    "intervals": ["Interval", "plain", "relative_change"],
    "languages": ["language_name", "word_spans"],
    "models": ["Base", "load_base", "load_model"],
    "recipe": ["Recipe"],
    "report.report": ["compare_runs", "stage_tables", "write_report"],
    "runner": ["open_run", "run_notebooks"],
    "tokens": ["document_start", "readable", "token_spans"],
    "training.estimates": ["ResourceEstimate", "estimate_resources"],
    "training.mixture": ["Mixture", "english_shares", "interleave", "mix"],
    "training.synthesis": ["synthesize_english"],
    "training.train": [
        "Training",
        "interpolate",
        "mixture_of",
        "save_adapted",
        "train",
        "train_control",
    ],
    "training.views": ["live_curve", "plot_training"],
    "vocabulary.audit": ["audit_vocabulary", "describe_added", "lint_tokenizer"],
    "vocabulary.change": ["VocabularyChange"],
    "vocabulary.extend": ["extend_vocabulary", "trim_vocabulary"],
    "vocabulary.sizes": ["VocabularySizes", "measure_sizes"],
    "vocabulary.views": [
        "TokenFacts",
        "explore_html",
        "plot_sizes",
        "plot_token_counts",
        "plot_vocabulary_curve",
        "token_explorer",
        "vocabulary_size_widget",
    ],
    "workspace": ["Workspace"],
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
