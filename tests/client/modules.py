"""The modules of the SDK, in whatever folder they are."""

import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType


def modules(package: ModuleType) -> Iterator[str]:
    """Yields the names of the modules in a package, and in its folders that are private."""
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if not module.ispkg:
            yield module.name
        elif module.name.rpartition(".")[2].startswith("_"):
            yield from modules(importlib.import_module(module.name))
