"""Stage 4 in several processes: `accelerate launch -m langadapt_utils.training RUN`."""

from contextlib import nullcontext

from accelerate import PartialState

from ..models import load_base
from ..processes import in_processes, printer
from ..vocabulary.change import VocabularyChange
from ..workspace import Workspace
from .train import CHECKPOINTS, mixture_of, save_adapted, train, train_control

STAGE = "04_training"


def train_stage(run: Workspace, state: PartialState) -> None:
    """Train the model of a run whose first three stages are complete, and its control run."""
    first = state.is_main_process
    if run.is_complete(STAGE):
        if first:
            print(f"{STAGE} of {run.folder}: complete already")
        return
    recipe, report = run.recipe, printer(run, STAGE)
    change = VocabularyChange.load(run.stage("02_vocabulary"))
    start = run.stage("03_embeddings") / "model"
    with state.main_process_first():  # it fills the cache, the others read it
        mixture = mixture_of(recipe, change)
    with run.writing(STAGE) if first else nullcontext(run.partial(STAGE)) as stage:
        state.wait_for_everyone()
        result = train(start, change, mixture, recipe.training, stage / CHECKPOINTS, report=report)
        control = train_control(start, change, mixture, recipe, stage, report=report)
        if first:
            base = load_base(recipe.base, accept_terms=recipe.accept_terms)
            save_adapted(result.model, result.steps, change, stage, base, control=control)
    state.wait_for_everyone()


if __name__ == "__main__":
    in_processes(train_stage)
