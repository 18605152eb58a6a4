"""Who plays a script: on a server through the SDK, with a request id of its own for every mutation."""

import io
from typing import Any

from tests.faults.tasks import Array, Task

import backwire as bw

Answer = tuple[Any, ...]
"""What a call answered, as far as it must be the same in every run."""

REFUSALS = (
    bw.InvalidRequestError,
    bw.NotFoundError,
    bw.AlreadyExistsError,
    bw.FailedPreconditionError,
    bw.AbortedError,
)
"""Errors that a call deserves, whatever happens to the server."""

PATIENT = bw.Retry(seconds=60, first_contact=60, initial=0.005, maximum=0.05, rate=1_000)
"""Repeats so quickly that a test does not spend its time waiting."""


class Actor:
    """Has a session, and does with it what a script says.

    Attributes:
        session: The session, which is another one after a branch or a move.
        passes: The passes that were made and not used up.
    """

    SEED = 7

    def __init__(self, client: bw.Client, task: Task, label: str, durability: Any = None) -> None:
        """Creates the session; request ids begin with the label."""
        self.client = client
        self.task = task
        self.passes: dict[str, bw.Forward] = {}
        self._label = label
        self._requests = 0
        self._repeatable: tuple[str, int, float] | None = None
        self._marked = 0
        self.session = client.create_session(
            task.loss,
            task.optimizer,
            self.SEED,
            data_parallel=task.data_parallel,
            max_staleness=task.max_staleness,
            precision=task.precision,
            executor=task.executor,
            durability=durability,
            request_id=self.new_id(),
        )

    def new_id(self) -> str:
        """Returns a request id that no other request has."""
        self._requests += 1
        return f"{self._label}-{self._requests}"

    def forward(self, name: str, batch: int) -> Answer:
        found = self.session.forward(self.task.batch(batch), forward_id=name, request_id=self.new_id())
        self.passes[name] = found
        return found.loss, found.step

    def backward(self, name: str, weight: float, retain: bool) -> Answer:
        made = self.passes.get(name)
        if made is None:
            return ("the pass was refused",)
        gradients = made.backward(wrt=["x"], weight=weight, retain=retain, request_id=self.new_id())
        return (gradients["x"].tobytes(),)

    def step(self, normalize: Any, expected_step: int | None = None) -> Answer:
        return told(
            self.session.step(normalize=normalize, expected_step=expected_step, digest=True, request_id=self.new_id())
        )

    def train_step(self, batch: int, weight: float = 1.0) -> Answer:
        request_id = self.new_id()
        answer = told(self.session.train_step(self.task.batch(batch), weight=weight, request_id=request_id))
        self._repeatable = request_id, batch, weight
        return answer

    def repeat(self) -> Answer:
        """Sends the last TrainStep once more, and then another under its id."""
        if self._repeatable is None:
            return ()
        request_id, batch, weight = self._repeatable
        again = told(self.session.train_step(self.task.batch(batch), weight=weight, request_id=request_id))
        try:
            self.session.train_step(self.task.batch(batch + 1), request_id=request_id)
        except bw.RequestIdReusedError:
            return again
        return ("another request was taken under the same id",)

    def forget_requests(self) -> None:
        """Notes that the session knows of no earlier request."""
        self._repeatable = None
        self.passes.clear()

    def pipe_steps(self, batches: list[int], depth: int) -> Answer:
        with self.session.pipeline(depth=depth) as pipe:
            waiting = [pipe.train_step(self.task.batch(each), request_id=self.new_id()) for each in batches]
            saved = pipe.info()
        return *(told(each.result()) for each in waiting), saved.result().step

    def pipe_passes(self, batches: list[int], weights: list[float]) -> Answer:
        with self.session.pipeline() as pipe:
            forwards = [pipe.forward(self.task.batch(each), request_id=self.new_id()) for each in batches]
            for forward, weight in zip(forwards, weights, strict=True):
                pipe.backward(forward, weight=weight, request_id=self.new_id())
            step = pipe.step(normalize="mean", digest=True, request_id=self.new_id())
        return *(each.result().loss for each in forwards), told(step.result())

    def fit(self, batches: list[int]) -> Answer:
        return tuple(told(each) for each in self.session.train_steps(self.task.batch(each) for each in batches))

    def set_parameter(self, number: int) -> Answer:
        self.session.set_parameters({self.task.parameter: self.task.value(number)}, request_id=self.new_id())
        return ()

    def zero_gradients(self) -> Answer:
        return (self.session.zero_gradients(request_id=self.new_id()),)

    def under_lease(self, batches: list[int]) -> Answer:
        """Trains as the only writer; somebody else may not meanwhile."""
        other, answers = self.client.session(self.session.id), []
        with self.session.attach(holder="the actor", request_id=self.new_id()):
            for batch in batches:
                answers.append(self.train_step(batch))
                try:
                    other.train_step(self.task.batch(batch), request_id=self.new_id())
                except bw.WriterFencedError:
                    answers.append(("fenced",))
        self._repeatable = None  # the lease that it was sent under is over
        return tuple(answers)

    def branch(self, batches: list[int], *, stay: bool) -> Answer:
        """Trains a branch, and goes on with it to `stay`, else with what it branched from."""
        before = self.session
        after = before.fork(request_id=self.new_id())
        answers = [told(after.train_step(self.task.batch(each), request_id=self.new_id())) for each in batches]
        answers.append((after.digest(), before.digest()))
        gone, self.session = (before, after) if stay else (after, before)
        gone.close(request_id=self.new_id())
        if stay:
            self.forget_requests()
        return tuple(answers)

    def move(self) -> Answer:
        """Goes on with a session that is made of a file of this one."""
        file, before = io.BytesIO(), self.session
        before.export(file)
        file.seek(0)
        self.session = self.client.import_session(file, durability=before.info().durability, request_id=self.new_id())
        before.close(request_id=self.new_id())
        self.forget_requests()
        return (self.session.digest(),)

    def save(self, name: str) -> Answer:
        found = self.session.save_checkpoint(name, request_id=self.new_id())
        return found.step, found.digest

    def restore(self, name: str) -> Answer:
        found = self.session.restore_checkpoint(name, request_id=self.new_id())
        self.passes.clear()
        return found.step, found.digest

    def forget(self, name: str) -> Answer:
        self.session.delete_checkpoint(name, request_id=self.new_id())
        return ()

    def mark(self, batch: int) -> Answer:
        """Makes a step to which `rewind` goes back."""
        answer = self.train_step(batch)
        while answer[3]:  # it was skipped, as the first with float16 may be, and so there is no such step yet
            answer = self.train_step(batch)
        self._marked = answer[0]
        return answer

    def rewind(self) -> Answer:
        found = self.session.rewind(self._marked, request_id=self.new_id())
        self.passes.clear()
        return found.step, found.digest

    def digest(self) -> str:
        """Returns the digest of the session's state, which its step is part of."""
        return self.session.digest()

    def close(self) -> None:
        """Deletes the session."""
        self.session.close(request_id=self.new_id())


def told(result: bw.StepResult) -> Answer:
    """Returns what a step answered."""
    loss = result.loss if isinstance(result, bw.TrainStepResult) else None
    refused = result.skipped, result.non_finite_parameter, result.loss_scale
    return result.step, result.gradient_norm, result.contributions, *refused, result.learning_rate, result.digest, loss


def not_a_number(batch: dict[str, Array]) -> dict[str, Array]:
    """Returns the batch with one element that is none."""
    x = batch["x"].copy()
    x.flat[0] = float("nan")
    return {**batch, "x": x}
