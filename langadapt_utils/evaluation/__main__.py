"""Stage 5 in several processes: `accelerate launch -m langadapt_utils.evaluation RUN`."""

from accelerate import PartialState

from ..corpus.corpus import load_corpus
from ..files import write_atomically
from ..processes import in_processes, printer
from ..workspace import Workspace
from .evaluate import MEASURED, STAGE, evaluate, run_models


def measure(run: Workspace, state: PartialState) -> None:
    """Measure the models of a run whose training is complete; notebook 5 loads the scores."""
    with state.main_process_first():  # it fills the cache, the others read it
        models, corpus = run_models(run), load_corpus(run.recipe.corpus, run.recipe.language)
    report = printer(run, STAGE) if state.is_main_process else lambda doing: None
    scores = evaluate(models, corpus, run.recipe.evaluation, report=report)
    if state.is_main_process:
        write_atomically(run.begun(STAGE) / MEASURED, scores.save)
    state.wait_for_everyone()


if __name__ == "__main__":
    in_processes(measure)
