"""Runs the Python snippets of a page in one namespace: `python -m tests.docs.running PAGE` prints what each printed.

Each page has a process of its own, since pages configure what holds for a whole process, such as tracing.
"""

import contextlib
import importlib
import io
import json
import sys
from typing import Any

from tests.docs.pages import DOCS, python


def run(page: str) -> list[str]:
    """Runs the snippets in their order and returns what each printed. Tracebacks name the page and the line."""
    namespace: dict[str, Any] = importlib.import_module("tests.docs.preparing").prepare(page)
    printed = []
    try:
        for snippet in python(page):
            code = compile("\n" * (snippet.line - 1) + snippet.code, str(DOCS / page), "exec")
            with contextlib.redirect_stdout(io.StringIO()) as output:
                exec(code, namespace)
            printed.append(output.getvalue())
    finally:
        client = namespace.get("client")
        if client is not None:
            client.close()
    return printed


if __name__ == "__main__":
    json.dump(run(sys.argv[1]), sys.stdout)
