"""Packages that only some calls need, imported when they are needed."""

import importlib
from typing import Any

from backwire._errors_service import MissingExtraError


def needed(module: str, extra: str) -> Any:
    """Returns a module; raises MissingExtraError, which names the extra of this distribution that has it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise MissingExtraError(
            f"this needs {package}, which is not installed; install it with: pip install 'backwire[{extra}]'"
        ) from None
