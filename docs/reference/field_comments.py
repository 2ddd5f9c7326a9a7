"""The comment beside a field as its docstring in the reference: that is where the code says meaning, shape and unit."""

import inspect
import io
import tokenize
from typing import Any

import griffe


class FieldComments(griffe.Extension):
    """Read when `make docs` collects the names of the package."""

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Give an attribute without a docstring that of its comment."""
        if attr.docstring is None and attr.lines:
            tokens = tokenize.generate_tokens(io.StringIO(inspect.cleandoc("\n".join(attr.lines))).readline)
            comments = [token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT]
            if comments:
                attr.docstring = griffe.Docstring(" ".join(comments), parent=attr)
