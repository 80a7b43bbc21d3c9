"""Docstrings here begin an example with `Example:`; griffe knows `Examples:` as code."""

from typing import Any

import griffe


class Examples(griffe.Extension):
    """Gives the section of an example the name that griffe renders as code."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rename the section of an object that was just read."""
        if obj.docstring is not None:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
