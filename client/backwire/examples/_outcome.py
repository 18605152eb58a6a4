"""What examples return, and how they are run from the command line."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass

import backwire as bw


@dataclass(frozen=True, slots=True)
class Outcome:
    """A figure before and after training, what it is, and anything else that is worth seeing."""

    what: str
    before: float
    after: float
    note: str = ""

    def __str__(self) -> str:
        figures = f"{self.what}: {self.before:.4g} -> {self.after:.4g}"
        return f"{figures}\n{self.note}" if self.note else figures


def main(example: Callable[[bw.Client], Outcome]) -> None:
    """Runs an example on the server whose address is the argument, or on one of its own, and prints the outcome."""
    parser = argparse.ArgumentParser(description=sys.modules[example.__module__].__doc__)
    parser.add_argument("target", nargs="?", default="embedded", help="the address of a server")
    with bw.connect(parser.parse_args().target) as client:
        sys.stdout.write(f"{example(client)}\n")
