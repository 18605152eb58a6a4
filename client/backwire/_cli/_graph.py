"""`backwire graph`: draws what a model computes, and how gradients go back through it."""

import argparse
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import backwire
from backwire._builder import _functions_reduction
from backwire._builder._graph import Graph
from backwire._cli import _drawing_text, _models, _options
from backwire._cli._drawing import Drawing, drawing
from backwire._cli._models import Sizes
from backwire._client import Client
from backwire._errors import InvalidRequestError
from backwire._inspection import GraphDescription

_SECONDS = 120.0
_SUFFIXES = {".svg": "svg", ".dot": "dot", ".gv": "dot", ".mmd": "mermaid", ".mermaid": "mermaid"}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to its parser."""
    parser.add_argument("model", metavar="MODEL.onnx", help="the model")
    parser.add_argument("--output", metavar="FILE", help="where the drawing goes (default: it is printed)")
    parser.add_argument(
        "--format",
        choices=sorted(_FORMATS),
        help="svg needs Graphviz, whose language is dot (default: what the file's name says, or mermaid)",
    )
    parser.add_argument("--forward", action="store_true", help="leave out the gradients")
    parser.add_argument("--loss", metavar="VALUE", help="what gradients start from; by default the mean of all outputs")
    _options.add_shapes(parser, "the shape of an input; sizes that nothing gives are taken to be 1")
    parser.add_argument(
        "--profile",
        type=_options.positive,
        metavar="PASSES",
        help="measure so many passes on random inputs, and tell what each operator and its gradient take",
    )
    _options.add_json(parser)
    _options.add_target(parser, _options.PRIVATE, timeout=60.0)


def lines(options: argparse.Namespace) -> Iterator[str]:
    """Draws the model; yields the drawing, or nothing where it goes into a file."""
    write = _writer(options)
    text = write(_drawn(options))
    if options.output is None:
        yield text
        return
    with _options.usable(options.output):
        Path(options.output).write_text(f"{text}\n", encoding="utf-8")


def svg(drawing: Drawing) -> str:
    """Returns the drawing as Graphviz lays it out; raises InvalidRequestError where that is not installed or fails."""
    program = shutil.which("dot")
    if program is None:
        raise InvalidRequestError("svg needs Graphviz, which is not installed; install it, or use --format mermaid")
    source = _drawing_text.dot(drawing)
    try:
        made = subprocess.run([program, "-Tsvg"], input=source, capture_output=True, encoding="utf-8", timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        raise InvalidRequestError(
            f"Graphviz was not done within {_SECONDS:.0f} s; leave out gradients with --forward, or use --format dot"
        ) from None
    if made.returncode:
        raise InvalidRequestError(f"Graphviz failed: {made.stderr.strip()}; use --format dot to see what it was given")
    return made.stdout.rstrip()


_FORMATS: Mapping[str, Callable[[Drawing], str]] = {
    "svg": svg,
    "dot": _drawing_text.dot,
    "mermaid": _drawing_text.mermaid,
}


def _writer(options: argparse.Namespace) -> Callable[[Drawing], str]:
    if options.json:
        return lambda made: _options.as_json(_drawing_text.document(made))
    if options.format or options.output is None:
        return _FORMATS[options.format or "mermaid"]
    suffix = Path(options.output).suffix.lower()
    if suffix not in _SUFFIXES:
        known = ", ".join(_SUFFIXES)
        raise InvalidRequestError(f"{options.output} does not say how to draw; end it in {known}, or give --format")
    return _FORMATS[_SUFFIXES[suffix]]


def _drawn(options: argparse.Namespace) -> Drawing:
    model = _models.read_model(options.model)
    sizes = _models.sizes_of(model, dict(options.shape), otherwise=1)
    graph = model if options.forward else _with_loss(model, options.loss)
    with backwire.connect(options.target, timeout=options.timeout, **_options.credentials(options)) as client:
        ops = client.ops()
        if options.profile is None:
            found, costs = client.describe(graph, sizes.shapes), {}
        else:
            found = _profiled(client, graph, sizes, options.profile)
            costs = found.nodes
    return drawing(graph.proto, found.values, ops, backward=not options.forward, costs=costs)


def _profiled(client: Client, graph: Graph, sizes: Sizes, passes: int) -> GraphDescription:
    with client.create_session(graph) as session:
        found = session.describe(_models.draw(graph, sizes, {}, seed=0), passes=passes)
    assert found.description is not None
    return found.description


def _with_loss(model: Graph, wanted: str | None) -> Graph:
    return _models.with_loss(model, wanted, lambda _, value: _functions_reduction.mean(value), "mean")[0]
