"""Has the reference show `Example:` sections of docstrings as code, as it does those called `Examples:`."""

import re
from typing import Any

from griffe import Extension, Object

TITLE = re.compile(r"^( *)Example:$", re.MULTILINE)


class SingularExamples(Extension):
    """Reads `Example:` as `Examples:`, the only name by which Griffe knows such a section."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Renames the sections of an object's docstring before it is parsed."""
        if obj.docstring is not None:
            obj.docstring.value = TITLE.sub(r"\1Examples:", obj.docstring.value)
