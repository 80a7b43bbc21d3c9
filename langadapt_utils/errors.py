"""One family of errors. Each message names the problem, the value and the remedy."""


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
