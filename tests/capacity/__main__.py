"""Plays deployments of up to a million sessions on a thousand nodes through: `make capacity`.

Costs are those that were measured in this project; `--costs out/bench.json` puts those of a run of `make bench` in
their place. What is assumed of nodes and sessions is in `tests/capacity/fleet.py`. The outcome is the same for the same
seed.
"""

import argparse
import json
import sys
from pathlib import Path

from tests.capacity.costs import MEASURED, Figure, read
from tests.capacity.fleet import Setting
from tests.capacity.report import as_json, page, run, tables


def main() -> int:
    """Prints the tables, and writes JSON and, if asked to, a page that has their places."""
    options = _options()
    found = run(options.costs, Setting(), options.seed)
    made = tables(found)
    sys.stdout.write("".join(f"{name}\n\n{table}\n\n" for name, table in made.items()))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(as_json(found), indent=2) + "\n")
    sys.stdout.write(f"written to {options.output}\n")
    if options.page is not None:
        options.page.write_text(page(options.page.read_text(), made))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.capacity", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument(
        "--costs", type=_figures, default=MEASURED, metavar="FILE", help="what `make bench` wrote (default: built in)"
    )
    parser.add_argument("--output", type=Path, default=Path("out/capacity.json"), help="(default: %(default)s)")
    parser.add_argument("--page", type=Path, metavar="FILE", help="puts the tables into it, such as docs/capacity.md")
    return parser.parse_args()


def _figures(text: str) -> dict[str, Figure]:
    try:
        return read(Path(text))
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text}: {error}; name a file that `make bench` wrote") from error


if __name__ == "__main__":
    sys.exit(main())
