"""`backwire train`: trains an ONNX model on arrays, and writes it back as ONNX."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import backwire
from backwire._builder._graph import Graph
from backwire._cli import _aims, _describe, _frames, _models, _options
from backwire._cli._aims import Aim
from backwire._cli._frames import Frame, figure
from backwire._cli._watch import sparkline
from backwire._errors import InvalidRequestError
from backwire._extras import needed
from backwire._session import Session
from backwire._training._callbacks import EarlyStopping
from backwire._training._history import Epoch, History

_WIDTH = 10
_CURVE = 40
_SHOWN = 15


@dataclass(frozen=True, slots=True)
class _Plan:
    options: argparse.Namespace
    model: Graph
    aim: Aim

    def __str__(self) -> str:
        rows = max((len(array) for array in self.aim.data.values() if array.ndim), default=1)
        o = self.options
        how = f"{o.optimizer} {o.learning_rate:g}, batches of {o.batch_size}"
        return f"{_models.title(o.model)}: {self.aim.words} of {rows:,} examples with {how}"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to its parser."""
    parser.add_argument("model", metavar="MODEL.onnx", help="the model")
    parser.add_argument("data", metavar="DATA.npz", help="an array for each input, and one of labels")
    parser.add_argument(
        "--loss",
        metavar="LOSS",
        help=f"what to lower: {', '.join(_aims.LOSSES)}, or the name of a value of the model (default: what suits "
        "the labels, or without labels the model's own loss)",
    )
    parser.add_argument("--labels", metavar="ARRAY", help="the labels (default: the only array that is no input)")
    parser.add_argument("--output", metavar="OUTPUT", help="what the labels are compared with (default: the only one)")
    parser.add_argument("--save", metavar="FILE", help="where the model goes (default: NAME-trained.onnx beside it)")
    parser.add_argument(
        "--optimizer",
        choices=sorted(_describe.OPTIMIZERS),
        default="adam",
        metavar="NAME",
        help=f"{', '.join(sorted(_describe.OPTIMIZERS))} (default: %(default)s)",
    )
    for flag, kind, default, text in (
        ("--learning-rate", _options.above_zero, 1e-3, "how far a step goes (default: %(default)s)"),
        ("--epochs", _options.positive, 10, "passes over the data (default: %(default)s)"),
        ("--batch-size", _options.positive, 32, "examples in a step (default: %(default)s)"),
        ("--validation", _share, None, "a share of the examples to hold out and judge by, such as 0.1"),
        ("--patience", _options.positive, None, "end when the loss is not better for so many epochs"),
        ("--seed", _options.seed, 0, "what orders and masks are drawn from (default: %(default)s)"),
    ):
        parser.add_argument(flag, type=kind, default=default, metavar="NUMBER", help=text)
    parser.add_argument("--keep", action="store_true", help="leave the session on the server, and print its id")
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each epoch, and one at the end")
    _options.add_target(parser, _options.PRIVATE, timeout=60.0)


def lines(options: argparse.Namespace) -> Iterator[str]:
    """Trains, saves, and yields what is to be printed; raises InvalidRequestError for what cannot be kept."""
    if options.keep and options.target == _options.PRIVATE:
        raise InvalidRequestError("--keep leaves the session on a server that goes on; name one with --target")
    model = _models.read_model(options.model)
    arrays = _models.read_arrays(options.data)
    names = {"loss": options.loss, "output": options.output, "labels": options.labels}
    plan = _Plan(options, model, _aims.choose(model, arrays, **names))
    optimizer = _describe.OPTIMIZERS[options.optimizer](learning_rate=options.learning_rate)
    with backwire.connect(options.target, timeout=options.timeout, **_options.credentials(options)) as client:
        session = client.create_session(plan.aim.graph, optimizer, options.seed)
        try:
            yield from _told(plan, session)
        finally:
            if not options.keep:
                session.close()


def _told(plan: _Plan, session: Session) -> Iterator[str]:
    """Trains and saves, also after an interrupt, and yields what is to be printed of it."""
    history = History()
    try:
        yield from _training(plan, session, history)
    except KeyboardInterrupt:
        if not history.steps:
            raise
        history.stopped = f"interrupted after {len(history.steps):,} steps"
        yield from _saved(plan, session, history)
        raise
    yield from _saved(plan, session, history)


def _training(plan: _Plan, session: Session, history: History) -> Iterator[str]:
    """Trains, and yields what is to be printed meanwhile."""
    epochs = _epochs(plan, session, history)
    show = None if plan.options.json else _frames.live()
    if plan.options.json:
        yield from (_options.as_json(_document(each), indent=None) for each in epochs)
    elif show is None:
        yield str(plan)
        yield from _rows(epochs)
    else:
        show(_frame(plan, history) for _ in epochs)
        yield from _frames.lines(_frame(plan, history))


def _saved(plan: _Plan, session: Session, history: History) -> Iterator[str]:
    """Saves the model, and yields where, and why there are no more epochs."""
    path = _save(plan, session)
    kept = session.id if plan.options.keep else None
    if plan.options.json:
        yield _options.as_json(_end(plan, history, path, kept), indent=None)
        return
    if history.stopped:
        yield f"stopped: {history.stopped}"
    yield f"model: {path}"
    if kept:
        yield f"session: {kept}"


def _epochs(plan: _Plan, session: Session, history: History) -> Iterator[Epoch]:
    """Trains an epoch for each that is asked for."""
    o = plan.options
    callbacks = [EarlyStopping(patience=o.patience)] if o.patience else []
    for number in range(1, o.epochs + 1):
        session.fit(
            plan.aim.data,
            epochs=number,
            batch_size=o.batch_size,
            validation=o.validation,
            metrics=plan.aim.metrics,
            callbacks=callbacks,
            seed=o.seed,
            history=history,
            progress=False,
        )
        yield history.epochs[-1]
        if history.stopped:
            return


def _save(plan: _Plan, session: Session) -> str:
    """Writes the model, without what was added to it for training, and returns where."""
    o = plan.options
    path = o.save or str(Path(o.model).with_name(f"{Path(o.model).stem}-trained.onnx"))
    with _options.usable(path):
        needed("backwire.onnx", "onnx").save(session, path, graph=plan.model)
    return path


def _rows(epochs: Iterator[Epoch]) -> Iterator[str]:
    """Yields a row when an epoch is over, and a head before the first."""
    for number, epoch in enumerate(epochs):
        head, cells = _head(epoch), _cells(epoch)
        if not number:
            yield "  ".join(f"{name:>{_WIDTH}}" for name in head)
        yield "  ".join(f"{cell:>{max(_WIDTH, len(name))}}" for name, cell in zip(head, cells, strict=True))


def _frame(plan: _Plan, history: History) -> Frame:
    epochs = history.epochs
    curves = [
        f"{name:<20} {figure(values[-1]):>10}  {sparkline(values, _CURVE)}" for name, values in history.series().items()
    ]
    rows = [_cells(each) for each in epochs[-_SHOWN:]]
    head = _head(epochs[-1]) if epochs else ("EPOCH",)
    return Frame([str(plan), *curves], head, rows, tuple(range(len(head))))


def _head(epoch: Epoch) -> tuple[str, ...]:
    return "EPOCH", "STEPS", *map(str.upper, epoch.named()), "SECONDS"


def _cells(epoch: Epoch) -> tuple[str, ...]:
    return str(epoch.number), str(epoch.steps), *map(figure, epoch.named().values()), f"{epoch.seconds:.2f}"


def _document(epoch: Epoch) -> dict[str, Any]:
    return {
        "epoch": epoch.number,
        "steps": epoch.steps,
        "figures": dict(epoch.figures),
        "validation": dict(epoch.validation),
        "learning_rate": epoch.learning_rate,
        "seconds": epoch.seconds,
    }


def _end(plan: _Plan, history: History, path: str, kept: str | None) -> dict[str, Any]:
    return {
        "model": path,
        "loss": plan.aim.words,
        "epochs": len(history.epochs),
        "steps": len(history.steps),
        "stopped": history.stopped or None,
        "session": kept,
    }


def _share(text: str) -> float:
    """Returns a number between 0 and 1."""
    number = float(text)
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return number
