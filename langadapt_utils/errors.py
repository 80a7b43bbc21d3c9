"""One family of errors. Each message names the problem, the value and the remedy."""

from collections import abc
from contextlib import contextmanager

Errors = type[Exception] | tuple[type[Exception], ...]


class LangadaptError(Exception):
    """An error that the user can fix. The command line prints its message without a traceback."""


class RecipeError(LangadaptError):
    """An option of the recipe is unknown or has an invalid value."""


class WorkspaceError(LangadaptError):
    """A run folder has another recipe, lacks a stage, or has too little disk space."""


class SourceError(LangadaptError):
    """A model or a corpus cannot be downloaded or read."""


class CorpusError(LangadaptError):
    """Text is missing, empty, or too short for the task."""


class VocabularyError(LangadaptError):
    """A tokenizer cannot be measured or changed as requested."""


class ModelError(LangadaptError):
    """A model does not fit its tokenizer, the embedding method, the training or the machine."""


class StageFailed(LangadaptError):
    """A notebook stopped. The message names the notebook, the cell and the reason."""


def brief(error: BaseException | str) -> str:
    """Return an error or a text in one line of at most 160 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "…"


@contextmanager
def explained(
    kind: type[LangadaptError], problem: str, remedy: str, errors: Errors = Exception
) -> abc.Iterator[None]:
    """Turn errors of libraries inside the block into one of this family.

    Args:
        kind: of the error that is raised.
        problem: begins its message; the reason follows in brackets.
        remedy: ends its message.
        errors: that are turned; by default all, because libraries raise many kinds.
    """
    try:
        yield
    except LangadaptError:
        raise
    except errors as error:
        raise kind(f"{problem} ({brief(error)}): {remedy}") from error
