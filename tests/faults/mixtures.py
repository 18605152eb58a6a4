"""What a script does with several features of a session at once: parts, micro-batches, stale passes and branches."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.faults.actor import Actor, Answer, not_a_number, told

import backwire as bw


def train_with(actor: Actor, number: int, rows: int, settings: Mapping[str, Any]) -> Answer:
    batch = actor.task.batch(number, rows)
    return told(actor.session.train_step(batch, digest=True, request_id=actor.new_id(), **settings))


def forward_in(actor: Actor, name: str, number: int, rows: int, parts: int) -> Answer:
    """A pass that is kept, in so many parts."""
    batch = actor.task.batch(number, rows)
    found = actor.session.forward(batch, forward_id=name, data_parallel=parts, request_id=actor.new_id())
    actor.passes[name] = found
    return found.loss, found.step


def micro_batches(actor: Actor, numbers: Sequence[int], rows: Sequence[int], parts: int) -> Answer:
    """A step of micro-batches of different sizes, each in parts; gradients are read before it."""
    for number, count in zip(numbers, rows, strict=True):
        batch = actor.task.batch(number, count)
        made = actor.session.forward(batch, data_parallel=parts, request_id=actor.new_id())
        made.backward(weight=count, request_id=actor.new_id())
    gradients = {name: value.tobytes() for name, value in actor.session.gradients().items()}
    return gradients, told(actor.session.step(normalize="mean", digest=True, request_id=actor.new_id()))


def late(actor: Actor, number: int, between: Sequence[int]) -> Answer:
    """A pass whose Backward comes after steps, which is refused where they are more than the session allows."""
    made = actor.session.forward(actor.task.batch(number), forward_id="late", request_id=actor.new_id())
    steps = [told(actor.session.train_step(actor.task.batch(each), request_id=actor.new_id())) for each in between]
    try:
        gradients = made.backward(wrt=["x"], retain=True, request_id=actor.new_id())
        again = made.backward(wrt=["x"], request_id=actor.new_id())
    except bw.StalePassError as error:
        fresh = actor.session.forward(actor.task.batch(number), request_id=actor.new_id())
        fresh.backward(request_id=actor.new_id())
        return type(error).__name__, *steps
    return *steps, gradients["x"].tobytes(), again["x"].tobytes()


def poisoned(actor: Actor, number: int, settings: Mapping[str, Any]) -> Answer:
    """A step that is not finite, and is left out, or refused; the step after it is as ever."""
    batch = not_a_number(actor.task.batch(number))
    found = told(actor.session.train_step(batch, request_id=actor.new_id(), **settings))
    return found, actor.train_step(number)


def poisoned_branch(actor: Actor, number: int) -> Answer:
    """A branch that steps by what is not finite; what it was made of does not see it."""
    with actor.session.fork(request_id=actor.new_id()) as branch:
        batch = not_a_number(actor.task.batch(number))
        found = branch.train_step(batch, non_finite="allow", request_id=actor.new_id())
        return told(found)[0], branch.digest(), actor.train_step(number)


def both_branches(actor: Actor, numbers: Sequence[int], stay: bool) -> Answer:
    """Trains a branch and what it was made of in turns, and goes on with one of them."""
    before = actor.session
    after, answers = before.fork(request_id=actor.new_id()), []
    for number in numbers:
        for session in (after, before):
            made = session.forward(actor.task.batch(number), request_id=actor.new_id())
            made.backward(request_id=actor.new_id())
            answers.append(told(session.step(digest=True, request_id=actor.new_id())))
        answers.append(told(after.train_step(actor.task.batch(number), request_id=actor.new_id())))
    answers.append((after.digest(), before.digest()))
    gone, actor.session = (before, after) if stay else (after, before)
    gone.close(request_id=actor.new_id())
    if stay:
        actor.forget_requests()
    return tuple(answers)


def pipe_all(actor: Actor, numbers: Sequence[int], parts: Sequence[int]) -> Answer:
    """Steps and passes in different numbers of parts, on one stream."""
    with actor.session.pipeline() as pipe:
        results: list[Any] = []
        for number, count in zip(numbers, parts, strict=True):
            batch = actor.task.batch(number)
            results.append(pipe.train_step(batch, data_parallel=count, digest=True, request_id=actor.new_id()))
            made = pipe.forward(batch, data_parallel=count, request_id=actor.new_id())
            pipe.backward(made, request_id=actor.new_id())
            results.append(pipe.step(normalize="mean", digest=True, request_id=actor.new_id()))
    return tuple(told(each.result()) for each in results)


def look(actor: Actor, number: int, rows: int) -> Answer:
    """What may be read: a pass in eval mode, parameters, gradients, and what the session tells of itself."""
    session = actor.session
    found, info = session.forward(actor.task.batch(number, rows), "eval"), session.info()
    state = (info.step, info.data_parallel, info.max_staleness, info.precision, info.executor)
    arrays = [*session.parameters().values(), *session.gradients().values()]
    return found.loss, state, b"".join(each.tobytes() for each in arrays)


MIXTURES: Mapping[str, Callable[..., Answer]] = {
    each.__name__: each
    for each in (
        *(train_with, forward_in, micro_batches, late, poisoned, poisoned_branch, both_branches, pipe_all, look),
    )
}
"""By the name that a deed has."""
