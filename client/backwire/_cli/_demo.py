"""`backwire demo`: trains a network on handwritten digits, and tells how well it reads others."""

import argparse
from collections.abc import Iterator

from backwire._cli import _options
from backwire._errors_service import MissingExtraError


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to its parser."""
    parser.add_argument("--target", default=_options.PRIVATE, help="a running server (default: start a private one)")
    parser.add_argument("--output", default="out/digits.png", help="where the picture goes (default: %(default)s)")
    parser.add_argument(
        "--epochs", type=_options.positive, default=20, help="passes over the data (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=_options.seed, default=0, help="what the weights are drawn from (default: %(default)s)"
    )
    _options.add_json(parser)


def lines(options: argparse.Namespace) -> Iterator[str]:
    """Trains, draws, and yields how it went; raises Failed when the accuracy is below the goal."""
    try:
        from backwire import _demo
    except ModuleNotFoundError as error:
        missing = (error.name or "more").partition(".")[0]
        raise MissingExtraError(f"the demo needs {missing}; run: pip install 'backwire[demo]'") from None
    outcome = _demo.run(options.target, epochs=options.epochs, seed=options.seed)
    path, count = str(_demo.draw(outcome, options.output)), len(outcome.labels)
    passed = outcome.accuracy >= _demo.GOAL
    if options.json:
        figures = {"accuracy": outcome.accuracy, "digits": count, "goal": _demo.GOAL, "passed": passed}
        yield _options.as_json({**figures, "picture": path})
    else:
        yield f"test accuracy {outcome.accuracy:.1%} on {count} digits never trained on"
        yield f"picture: {path}"
    if not passed:
        raise _options.Failed(f"that is below the goal of {_demo.GOAL:.0%}")
