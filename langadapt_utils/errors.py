"""One family of errors: every message says what was wrong, with which value, and what to do."""


class LangadaptError(Exception):
    """Anything a user can mend: the command line prints its message, without a traceback."""


class RecipeError(LangadaptError):
    """An option of the recipe is unknown or has a value it cannot have."""


class WorkspaceError(LangadaptError):
    """A run folder cannot be used as asked: another recipe, a missing stage, too little disk."""


class SourceError(LangadaptError):
    """A model or a corpus cannot be fetched or read."""


class CorpusError(LangadaptError):
    """Text is missing, empty, or too little for what was asked."""


class VocabularyError(LangadaptError):
    """A tokenizer cannot be measured or changed as asked."""


class ModelError(LangadaptError):
    """A model and a tokenizer, or a model and a method, do not fit together."""
