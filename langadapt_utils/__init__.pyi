# The public names, in the order in which the notebooks use them; type checkers and
# `lazy_loader` read this file. Results have classes that are documented where they are made.

__version__: str

# A run: its options, its folder, its checks
from .recipe import Recipe as Recipe
from .runner import expected_time as expected_time
from .runner import open_run as open_run
from .planning import plan as plan
from .errors import LangadaptError as LangadaptError
from .checks import check as check
from .exercises import check_exercise as check_exercise
from .corpus.corpus import built_in_corpus as built_in_corpus
from .corpus.corpus import load_corpus as load_corpus
from .models import load_base as load_base
from .models import load_model as load_model
from .languages import language_name as language_name
from .languages import word_spans as word_spans
from .display.html import bytes_html as bytes_html
from .display.html import cuts_html as cuts_html
from .display.html import diagram as diagram
from .display.html import show as show
from .display.html import table_html as table_html

# Notebook 1: how many tokens a language takes
from .atlas import atlas_widget as atlas_widget
from .atlas import language_atlas as language_atlas
from .atlas import plot_atlas as plot_atlas
from .corpus.inspection import inspect_text as inspect_text
from .vocabulary.sizes import text_allowance as text_allowance
from .fertility import measure_fertility as measure_fertility
from .fertility import plot_fertility as plot_fertility
from .vocabulary.views import TokenFacts as TokenFacts
from .vocabulary.views import token_explorer as token_explorer
from .tokens import readable as readable
from .tokens import token_ids as token_ids

# Notebook 2: new tokens for the vocabulary
from .errors import VocabularyError as VocabularyError
from .vocabulary.extend import extend_vocabulary as extend_vocabulary
from .vocabulary.change import VocabularyChange as VocabularyChange
from .vocabulary.audit import lint_tokenizer as lint_tokenizer
from .vocabulary.sizes import measure_sizes as measure_sizes
from .vocabulary.views import plot_sizes as plot_sizes
from .vocabulary.views import vocabulary_size_widget as vocabulary_size_widget

# Notebook 3: first embeddings of new tokens
from .embeddings.initialise import METHODS as METHODS
from .embeddings.initialise import initialise_embeddings as initialise_embeddings
from .embeddings.initialise import new_embeddings as new_embeddings
from .embeddings.views import neighbour_table as neighbour_table
from .embeddings.views import neighbours_widget as neighbours_widget
from .experiments.comparison import compare_methods as compare_methods
from .experiments.comparison import recorded as recorded

# Notebook 4: training on a mixture of the language and English
from .corpus.corpus import check_contamination as check_contamination
from .training.mixture import english_shares as english_shares
from .training.mixture import mix as mix
from .training.optimizer import learning_rate as learning_rate
from .training.train import save_adapted as save_adapted
from .training.train import train as train
from .training.train import train_control as train_control
from .training.views import plot_training as plot_training
from .experiments.comparison import Comparison as Comparison
from .experiments.comparison import recorded_sweeps as recorded_sweeps
from .experiments.comparison import sweep as sweep
from .experiments.views import plot_sweep as plot_sweep

# Notebook 5: what improved, and what was forgotten
from .corpus.items import load_items as load_items
from .tokens import document_start as document_start
from .evaluation.likelihood import bits_per_byte as bits_per_byte
from .evaluation.evaluate import evaluate as evaluate
from .evaluation.evaluate import measured as measured
from .evaluation.evaluate import run_models as run_models
from .evaluation.forgetting import measure_gains as measure_gains
from .evaluation.forgetting import weight_drift as weight_drift
from .evaluation.views import findings_table as findings_table
from .evaluation.views import plot_changes as plot_changes
from .evaluation.views import samples_html as samples_html
from .evaluation.views import talk_widget as talk_widget
from .experiments.comparison import interpolation_sweep as interpolation_sweep
from .intervals import plain as plain
from .report.report import stage_tables as stage_tables
from .report.report import write_report as write_report

# Beyond the notebooks: the model in other programs
from .export.export import export_gguf as export_gguf
