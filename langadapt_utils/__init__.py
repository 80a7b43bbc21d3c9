"""Teach a pretrained English LLM a new language: extend, train, and measure what it forgets.

The public names stand in `__init__.pyi`, in the order of the notebooks. Each is loaded when it is
first used, so that the import itself is fast and needs no torch.

Example:
    >>> import langadapt_utils as la
    >>> recipe = la.Recipe.profile("cpu", language="hu")
    >>> recipe.mixture.english_share
    0.25
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
