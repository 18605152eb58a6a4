"""`backwire describe`: what training a model takes, before anything is trained."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import backwire
from backwire._builder import _functions_reduction
from backwire._builder._graph import Graph
from backwire._cli import _models, _options
from backwire._cli._models import Sizes
from backwire._inspection import GraphDescription, ValueInfo, WireBytes
from backwire._training import _optimizers

NO_OPTIMIZER = "none"
OPTIMIZERS = {
    name.lower(): getattr(backwire, name)
    for name in backwire.__all__
    if isinstance(getattr(backwire, name), type)
    and issubclass(getattr(backwire, name), _optimizers.Optimizer)
    and name != "Optimizer"
}


@dataclass(frozen=True, slots=True)
class _Report:
    model: str
    graph: Graph
    loss: str
    optimizer: str
    sizes: Sizes
    found: GraphDescription


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to its parser."""
    parser.add_argument("model", metavar="MODEL.onnx", help="the model")
    _options.add_shapes(parser, "the shape of an input; sizes that nothing gives are taken to be 1")
    parser.add_argument("--loss", metavar="VALUE", help="the value to train; by default the mean of all outputs")
    parser.add_argument(
        "--optimizer",
        choices=[*sorted(OPTIMIZERS), NO_OPTIMIZER],
        default="adam",
        metavar="NAME",
        help=f"what steps are made with: {', '.join(sorted(OPTIMIZERS))} or {NO_OPTIMIZER} (default: %(default)s)",
    )
    parser.add_argument("--values", action="store_true", help="list every value of the graph, too")
    parser.add_argument(
        "--nodes", action="store_true", help="list every node with its work, too, those with most first"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, with every value and node")
    _options.add_target(parser, _options.PRIVATE, timeout=60.0)


def lines(options: argparse.Namespace) -> Iterator[str]:
    """Asks the server and yields what it says, as a text or as JSON."""
    model = _models.read_model(options.model)
    sizes = _models.sizes_of(model, dict(options.shape), otherwise=1)
    graph, loss = _models.with_loss(model, options.loss, lambda _, value: _functions_reduction.mean(value), "mean")
    optimizer = None if options.optimizer == NO_OPTIMIZER else OPTIMIZERS[options.optimizer](learning_rate=1e-3)
    with backwire.connect(options.target, timeout=options.timeout, **_options.credentials(options)) as client:
        found = client.describe(graph, sizes.shapes, optimizer)
    made = _Report(_models.title(options.model), graph, loss, options.optimizer, sizes, found)
    if options.json:
        yield _options.as_json(_document(made))
    else:
        yield from _lines(made)
        if options.values:
            yield from _values(made)
        if options.nodes:
            yield from _nodes(made)


def _lines(made: _Report) -> Iterator[str]:
    found, flops = made.found, "FLOP"
    assumed = [f"{symbol}={size}" for symbol, size in made.sizes.assumed.items()]
    trained = f"{_options.count(found.parameter_count)}, of which {_options.count(found.trainable_count)} train"
    rows = [
        ("model", made.model),
        *(("input", _show(each)) for each in _inputs(made)),
        *([("assumed", f"{', '.join(assumed)}; --shape gives others")] if assumed else []),
        *(("output", _show(each)) for each in found.outputs.values()),
        ("loss", made.loss),
        ("parameters", f"{trained}, {_bytes(found.parameter_bytes)}"),
        ("session", f"{_bytes(found.state_bytes)} with optimizer {made.optimizer}"),
        ("forward", _options.scaled(found.forward_flops, flops)),
        ("backward", _options.scaled(found.backward_flops, flops)),
        ("memory", f"{_bytes(found.peak_bytes)} at most, {_bytes(found.pass_bytes)} kept from forward to backward"),
        ("Forward", _wire(found.forward)),
        *([("TrainStep", _wire(found.train_step))] if found.train_step else []),
    ]
    yield from _options.table(rows)


def _values(made: _Report) -> Iterator[str]:
    yield ""
    cells = [(each.name, each.dtype.name, str(list(each.shape))) for each in made.found.values.values()]
    yield from _options.table([("VALUE", "DTYPE", "SHAPE"), *cells])


def _nodes(made: _Report) -> Iterator[str]:
    yield ""
    ops = {next(filter(None, node.outputs)): node.op for node in made.graph.proto.nodes}
    costs = sorted(made.found.nodes.items(), key=lambda item: -item[1].forward_flops - item[1].backward_flops)
    cells = [
        (name, ops[name], *(_options.scaled(flops, "FLOP") for flops in (each.forward_flops, each.backward_flops)))
        for name, each in costs
    ]
    yield from _options.table([("NODE", "OP", "FORWARD", "BACKWARD"), *cells], right=(2, 3))


def _document(made: _Report) -> dict[str, Any]:
    found = made.found
    figures = ("parameter_count", "trainable_count", "parameter_bytes", "state_bytes")
    costs = ("forward_flops", "backward_flops", "pass_bytes", "peak_bytes")
    return {
        "model": made.model,
        "loss": made.loss,
        "optimizer": made.optimizer,
        "assumed": made.sizes.assumed,
        "inputs": [_value(each) for each in _inputs(made)],
        "outputs": [_value(each) for each in found.outputs.values()],
        **{name: getattr(found, name) for name in (*figures, *costs)},
        "wire": {"forward": _pair(found.forward), "train_step": found.train_step and _pair(found.train_step)},
        "values": [_value(each) for each in found.values.values()],
        "nodes": [
            {"output": name, "forward_flops": each.forward_flops, "backward_flops": each.backward_flops}
            for name, each in found.nodes.items()
        ],
    }


def _inputs(made: _Report) -> Iterator[ValueInfo]:
    names = [item.name for item in made.graph.proto.inputs]
    return (made.found.values[name] for name in names if name in made.found.values)


def _show(value: ValueInfo) -> str:
    return f"{value.name}: {value.dtype.name}{list(value.shape)}"


def _value(value: ValueInfo) -> dict[str, Any]:
    return {"name": value.name, "dtype": value.dtype.name, "shape": list(value.shape)}


def _bytes(number: int) -> str:
    return _options.scaled(number, "B")


def _wire(sent: WireBytes) -> str:
    return f"{_bytes(sent.request)} sent, {_bytes(sent.response)} received"


def _pair(sent: WireBytes) -> dict[str, int]:
    return {"request": sent.request, "response": sent.response}
