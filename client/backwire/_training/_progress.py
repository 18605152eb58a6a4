"""A bar that shows how far a training is, on a terminal or in a notebook."""

import importlib.util
import sys
from typing import Any

from backwire._extras import needed
from backwire._training._history import Means


class Progress:
    """A bar of tqdm, or nothing."""

    def __init__(self, wanted: bool | None, total: int | None, what: str) -> None:
        """Shows a bar where it is wanted; None wants one where somebody can see it and tqdm is installed.

        Raises MissingExtraError for True without tqdm.
        """
        shown = _visible() if wanted is None else wanted
        self._bar: Any = None
        if shown:
            self._bar = needed("tqdm.auto", "fit").tqdm(total=total, desc=what, unit="step")

    def step(self, what: str, means: Means | None = None) -> None:
        """Goes on by one step, and says of what, and how that went so far."""
        if self._bar is None:
            return
        self._bar.set_description(what, refresh=False)
        if means is not None:
            self._bar.set_postfix({name: f"{value:.4g}" for name, value in means.means().items()}, refresh=False)
        self._bar.update()

    def close(self) -> None:
        """Leaves the bar as it is."""
        if self._bar is not None:
            self._bar.close()


def _visible() -> bool:
    return importlib.util.find_spec("tqdm") is not None and (sys.stderr.isatty() or _in_notebook())


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    found = shell.get_ipython() if shell is not None else None
    return found is not None and "IPKernelApp" in found.config
