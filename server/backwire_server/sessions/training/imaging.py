"""Takes the state of a trainer out as an image, and makes trainers from images and from one another."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from backwire_server.engine.precision import needs_scale
from backwire_server.optim import FlatLayout, Optimizer, OptimizerState
from backwire_server.optim.optimizer import AVERAGE
from backwire_server.sessions.spec import SessionSpec
from backwire_server.sessions.training.parameters import ParameterStore, shape_of, trainable_layout
from backwire_server.sessions.training.state import Arrays, Image, PassImage, State
from backwire_server.sessions.training.versions import Array, Shared, Version

if TYPE_CHECKING:
    from backwire_server.sessions.training.trainer import Trainer

ArrayType = tuple[np.dtype[Any], tuple[int, ...]]


def state_of(trainer: "Trainer") -> State:
    """Returns the state as views, which the next call on the trainer may change."""
    sums = trainer.accumulator
    return State(
        step=trainer.step,
        forwards=trainer.forwards,
        contributions=sums.contributions,
        total_weight=sums.total_weight,
        parameters=trainer.parameters.arrays,
        gradients=sums.current.arrays if sums.contributions else {},
        memory=_by_name(trainer.layout, trainer.memory.current.state),
        scaling=trainer.scaling,
    )


def image_of(trainer: "Trainer", *, briefly: bool = False) -> Image:
    """Returns state and passes, held until the image is closed; see `Shared.hold` for `briefly`."""
    held: list[Shared] = [trainer.parameters.current, trainer.memory.current]
    if trainer.accumulator.contributions:
        held.append(trainer.accumulator.current)
    passes = []
    for name, kept in trainer.passes.live():
        origin = kept.origin
        passes.append(PassImage(name, origin.call, origin.number, origin.step, origin.parameters))
        held.append(kept.version)
    for version in held:
        version.hold(briefly=briefly)
    letting_go = [_release(version, briefly=briefly) for version in held]
    return Image(state_of(trainer), passes, settled=trainer.settled, on_close=letting_go)


def check_fits(spec: SessionSpec, state: State) -> None:
    """Raises ValueError unless this can be the state of such a session: its names, types and shapes, and no others."""
    graph = spec.graph
    _check("parameter", state.parameters, {p.name: (p.type.dtype, shape_of(p)) for p in graph.parameters})
    layout = trainable_layout(graph)
    trainable = {name: (slot.dtype, slot.shape) for name, slot in layout.slots.items()}
    _check("gradient", state.gradients, trainable if state.contributions else {})
    memory = _memory_types(spec.optimizer, layout) if spec.optimizer else {}
    if state.memory.keys() != memory.keys():
        raise ValueError(f"the optimizer remembers {sorted(memory)}, not {sorted(state.memory)}")
    if needs_scale(graph.precision) != (state.scaling is not None):
        raise ValueError(f"products of {graph.precision.name} do not go with a loss scale of {state.scaling}")
    for name, types in memory.items():
        _check(name, state.memory[name], types)


def restore(trainer: "Trainer", image: Image) -> None:
    """Makes a new trainer, which has the image's parameters, what the image says; takes copies of the other arrays."""
    state = image.state
    trainer.step, trainer.forwards, trainer.settled = state.step, state.forwards, image.settled
    trainer.scaling = state.scaling
    trainer.accumulator.restore(state.gradients, state.contributions, state.total_weight)
    for name, arrays in state.memory.items():
        for parameter, array in arrays.items():
            slot = trainer.layout.slots[parameter]
            slot.view(trainer.memory.current.state[slot.dtype][name])[...] = array
    stores = {id(state.parameters): trainer.parameters}
    versions = {_identities(trainer.layout, state.parameters): trainer.parameters.current}
    for each in image.passes:
        if id(each.parameters) not in stores:
            trainable = _identities(trainer.layout, each.parameters)
            stores[id(each.parameters)] = store = _old(trainer, each.parameters, versions.get(trainable))
            versions[trainable] = store.current
        trainer.remake(each, stores[id(each.parameters)])


def share(trainer: "Trainer", source: "Trainer") -> None:
    """Makes a new trainer go on from where the source is, whose parameters and memory it has; without its passes."""
    sums = source.accumulator
    trainer.step, trainer.forwards, trainer.settled = source.step, source.forwards, source.settled
    trainer.scaling = source.scaling
    trainer.accumulator.restore(sums.current.arrays, sums.contributions, sums.total_weight)


def _check(what: str, arrays: Arrays, wanted: Mapping[str, ArrayType]) -> None:
    if differing := arrays.keys() ^ wanted.keys():
        raise ValueError(f"each {what} must be there once, and no other; see to {sorted(differing)}")
    for name, (dtype, shape) in wanted.items():
        if (arrays[name].dtype, arrays[name].shape) != (dtype, shape):
            found = f"{arrays[name].dtype.name}{list(arrays[name].shape)}"
            raise ValueError(f"{what} {name!r} is {found}, not {dtype.name}{list(shape)}")


def _memory_types(optimizer: Optimizer, layout: FlatLayout) -> Mapping[str, dict[str, ArrayType]]:
    """Returns dtype and shape of all that an optimizer remembers, as `State.memory` has it; takes no memory for it."""
    names = {dtype: {AVERAGE} if optimizer.average_decay is not None else set[str]() for dtype in layout.sizes}
    for part in optimizer.segments(layout):
        names[part.dtype] |= part.rule.init(np.empty(0, part.dtype)).keys()
    found: dict[str, dict[str, ArrayType]] = {}
    for parameter, slot in layout.slots.items():
        for name in names[slot.dtype]:
            found.setdefault(name, {})[parameter] = slot.dtype, slot.shape
    return found


def _by_name(layout: FlatLayout, state: OptimizerState) -> Mapping[str, Arrays]:
    """Returns what an optimizer remembers by its name for it, and then by parameter, as views."""
    found: dict[str, dict[str, Array]] = {}
    for parameter, slot in layout.slots.items():
        for name, vector in state.get(slot.dtype, {}).items():
            found.setdefault(name, {})[parameter] = slot.view(vector)
    return found


def _identities(layout: FlatLayout, arrays: Arrays) -> tuple[int, ...]:
    """Returns what tells the trainable ones among arrays apart: passes share them where only frozen ones changed."""
    return tuple(id(arrays[name]) for name in layout.slots)


def _old(trainer: "Trainer", values: Arrays, shared: Version | None) -> ParameterStore:
    """Returns the parameters that passes were made with, which hold them by themselves."""
    store = ParameterStore(trainer.graph, values, shared)
    if shared is not None:
        shared.leave()
    return store


def _release(version: Shared, *, briefly: bool) -> Callable[[], None]:
    return partial(version.release, briefly=briefly)
