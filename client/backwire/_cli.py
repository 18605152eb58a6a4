"""The command line: `backwire serve`, `demo`, `describe`, `check-gradients`, `health`, `ops`, `sessions`, `token`..."""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Sequence

import backwire
from backwire import _channel, _cli_check, _cli_describe, _cli_options, _cli_sessions, _cli_tokens, _health
from backwire._errors import BackwireError

_SERVER_COMMANDS = {"serve": "backwire_server", "verify": "backwire_server.storage.verify"}

_EXIT_CODES = """\
exit codes:
  0    done; for health: the server is serving
  1    failed; for health: not serving; for demo: the accuracy is too low; for check-gradients: an error is
       above the tolerance
  2    wrong usage
  130  interrupted
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code, which `backwire --help` lists; `serve` and `verify` do not return."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:2] == ["config", "check"]:
        _become("backwire_server", ["--check-config", *given[2:]])
    if given[:1] and given[0] in _SERVER_COMMANDS:
        _become(_SERVER_COMMANDS[given[0]], given[1:])
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
    demo.add_argument("--target", default=_cli_options.PRIVATE, help="a running server (default: start a private one)")
    demo.add_argument("--output", default="out/digits.png", help="where the picture goes (default: %(default)s)")
    demo.add_argument(
        "--epochs", type=_cli_options.positive, default=20, help="passes over the data (default: %(default)s)"
    )
    demo.add_argument(
        "--seed", type=_cli_options.seed, default=0, help="what the weights are drawn from (default: %(default)s)"
    )
    demo.set_defaults(run=_demo)

    describe = commands.add_parser(
        "describe",
        help="tell what training a model takes",
        description="Tells the shapes, parameters, work, memory and traffic of training an ONNX model.",
    )
    _cli_describe.add_options(describe)
    describe.set_defaults(run=_describe)

    check = commands.add_parser(
        "check-gradients",
        help="compare a model's gradients with finite differences",
        description="Compares the gradients of an ONNX model with finite differences. Exits with 1 when an error is "
        "above the tolerance.",
    )
    _cli_check.add_options(check)
    check.set_defaults(run=_check_gradients)

    health = commands.add_parser(
        "health",
        help="tell whether a server is serving",
        description="Prints the status of a server. Exits with 0 when it is serving, and with 1 otherwise.",
    )
    _cli_options.add_target(health, _cli_options.RUNNING, timeout=3.0)
    health.set_defaults(run=_print_health)

    ops = commands.add_parser(
        "ops",
        help="list the operators of a server",
        description="Lists the operators that a graph may have, or tells all about those that are named.",
    )
    ops.add_argument("names", nargs="*", metavar="OP", help="an operator to tell all about, such as Gemm")
    _cli_options.add_target(ops, _cli_options.RUNNING, timeout=10.0)
    ops.set_defaults(run=_print_ops)

    sessions = commands.add_parser(
        "sessions",
        help="list, show, delete, fork, export and import the sessions of a server",
        description="Lists all sessions, oldest first; or does with one what a command says.",
    )
    _cli_sessions.add_options(sessions)
    sessions.set_defaults(run=_print_sessions)

    commands.add_parser(
        "verify",
        help="replay what a data directory has and compare; `backwire verify --help` tells more",
        add_help=False,
    )

    config = commands.add_parser(
        "config",
        help="`backwire config check` prints every setting of a server and where it comes from",
        description="Checks the configuration of a server without starting it; takes the options of `backwire serve`.",
    )
    config.add_argument("check", choices=["check"])

    token = commands.add_parser(
        "token",
        help="make, list and revoke the tokens that let clients in",
        description="Makes, lists and revokes the tokens of a file that `backwire serve --tokens FILE` reads.",
    )
    _cli_tokens.add_options(token)
    token.set_defaults(run=_tokens)

    version = commands.add_parser("version", help="print the version")
    version.set_defaults(run=_print_version)
    return parser


def _become(module: str, arguments: Sequence[str]) -> None:
    """Becomes a process of the server's, which sets its environment before it loads numpy."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])


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


def _describe(options: argparse.Namespace) -> int:
    print(_cli_describe.report(options))
    return 0


def _check_gradients(options: argparse.Namespace) -> int:
    outcome = _cli_check.check(options)
    print(outcome.text)
    return 0 if outcome.passed else 1


def _print_health(options: argparse.Namespace) -> int:
    channel = _channel.open_channel(options.target, **_cli_options.credentials(options))
    with contextlib.closing(channel):
        status = _health.health(channel, timeout=options.timeout)
    print(status)
    return 0 if status == "SERVING" else 1


def _print_sessions(options: argparse.Namespace) -> int:
    for line in _cli_sessions.lines(options):
        print(line)
    return 0


def _print_ops(options: argparse.Namespace) -> int:
    with backwire.connect(options.target, timeout=options.timeout, **_cli_options.credentials(options)) as client:
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


def _tokens(options: argparse.Namespace) -> int:
    printed = _cli_tokens.run(options)
    for line in printed.err:
        print(line, file=sys.stderr)
    for line in printed.out:
        print(line)
    return 0


def _print_version(options: argparse.Namespace) -> int:  # noqa: ARG001
    print(f"backwire {backwire.__version__}")
    return 0
