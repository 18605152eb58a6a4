"""The command line: `backwire serve`, `demo`, `health`, `ops`, `sessions`, `version`."""

import argparse
import contextlib
import math
import os
import sys
from collections.abc import Callable, Sequence

import backwire
from backwire import _channel, _client, _health
from backwire._errors import BackwireError

_EXIT_CODES = """\
exit codes:
  0    done; for health: the server is serving
  1    failed; for health: not serving; for demo: the accuracy is too low
  2    wrong usage
  130  interrupted
"""

_DEFAULT_TARGET = f"localhost:{_channel.DEFAULT_PORT}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code, which `backwire --help` lists; `serve` does not return."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["serve"]:
        _serve(given[1:])
    options = _parser().parse_args(given)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except BackwireError as error:
        print(f"backwire: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="backwire",
        description="Gradient computation as a service.",
        epilog=_EXIT_CODES,
        formatter_class=formatter,
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    commands.add_parser("serve", help="start a server; `backwire serve --help` lists its options", add_help=False)

    demo = commands.add_parser(
        "demo",
        help="train a network on handwritten digits",
        description="Trains a network on scikit-learn's handwritten digits through a server, and draws how it went.",
    )
    demo.add_argument("--target", default=_client.EMBEDDED, help="a running server (default: start a private one)")
    demo.add_argument("--output", default="out/digits.png", help="where the picture goes (default: %(default)s)")
    demo.add_argument("--epochs", type=_positive, default=20, help="passes over the data (default: %(default)s)")
    demo.add_argument("--seed", type=int, default=0, help="what the weights are drawn from (default: %(default)s)")
    demo.set_defaults(run=_demo)

    health = commands.add_parser(
        "health",
        help="tell whether a server is serving",
        description="Prints the status of a server. Exits with 0 when it is serving, and with 1 otherwise.",
    )
    _add_target(health, timeout=3.0)
    health.set_defaults(run=_print_health)

    ops = commands.add_parser(
        "ops",
        help="list the operators of a server",
        description="Lists the operators that a graph may have, or tells all about those that are named.",
    )
    ops.add_argument("names", nargs="*", metavar="OP", help="an operator to tell all about, such as Gemm")
    _add_target(ops, timeout=10.0)
    ops.set_defaults(run=_print_ops)

    sessions = commands.add_parser(
        "sessions", help="list the sessions of a server", description="Lists all sessions, oldest first."
    )
    _add_target(sessions, timeout=10.0)
    sessions.set_defaults(run=_print_sessions)

    version = commands.add_parser("version", help="print the version")
    version.set_defaults(run=_print_version)
    return parser


def _add_target(parser: argparse.ArgumentParser, *, timeout: float) -> None:
    parser.add_argument("--target", default=_DEFAULT_TARGET, help="host:port or unix:/path (default: %(default)s)")
    parser.add_argument(
        "--timeout", type=_seconds, default=timeout, metavar="SECONDS", help="how long to wait (default: %(default)s)"
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def _serve(arguments: Sequence[str]) -> None:
    """Becomes the server process, which sets its environment before it loads numpy."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "backwire_server", *arguments])


def _demo(options: argparse.Namespace) -> int:
    try:
        from backwire import _demo
    except ModuleNotFoundError as error:
        missing = (error.name or "more").partition(".")[0]
        print(f"backwire: the demo needs {missing}; run: pip install 'backwire[demo]'", file=sys.stderr)
        return 1
    outcome = _demo.run(options.target, epochs=options.epochs, seed=options.seed)
    path = _demo.draw(outcome, options.output)
    print(f"test accuracy {outcome.accuracy:.1%} on {len(outcome.labels)} digits never trained on")
    print(f"picture: {path}")
    if outcome.accuracy < _demo.GOAL:
        print(f"backwire: that is below the goal of {_demo.GOAL:.0%}", file=sys.stderr)
        return 1
    return 0


def _print_health(options: argparse.Namespace) -> int:
    channel = _channel.open_channel(options.target, token=None, tls=None)
    with contextlib.closing(channel):
        status = _health.health(channel, timeout=options.timeout)
    print(status)
    return 0 if status == "SERVING" else 1


def _print_sessions(options: argparse.Namespace) -> int:
    row = "{:<36} {:>8} {:>8} {:>12} {:>7}  {}"
    with backwire.connect(options.target, timeout=options.timeout) as client:
        print(row.format("SESSION", "STEP", "PENDING", "PARAMETERS", "PASSES", "CREATED"))
        for session in client.sessions():
            count = sum(math.prod(parameter.shape) for parameter in session.parameters)
            created = session.created.strftime("%Y-%m-%d %H:%M:%SZ")
            cells = (session.id, session.step, session.contributions, count, len(session.forward_ids), created)
            print(row.format(*cells))
    return 0


def _print_ops(options: argparse.Namespace) -> int:
    with backwire.connect(options.target, timeout=options.timeout) as client:
        ops = client.ops()
    if not options.names:
        for op in ops.values():
            print(f"{op.name:<28} {op.doc.splitlines()[0]}")
        return 0
    unknown = [name for name in options.names if name not in ops]
    for name in unknown:
        print(f"backwire: the server has no op {name!r}; `backwire ops` lists all", file=sys.stderr)
    for name in options.names:
        if name in ops:
            print(f"{ops[name]}\n")
    return 1 if unknown else 0


def _print_version(options: argparse.Namespace) -> int:  # noqa: ARG001
    print(f"backwire {backwire.__version__}")
    return 0
