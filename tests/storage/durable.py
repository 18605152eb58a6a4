"""Durable sessions as a server has them, the ways in which one leaves the memory, and all that can be done to it."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tests.graphs import dot_graph
from tests.storage.drawing import told

import backwire as bw
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.messages.session import session_spec
from backwire_server.sessions.calls import BackwardCall, ForwardCall, StepOptions, TrainCall
from backwire_server.sessions.info import Home
from backwire_server.sessions.keeping.durable import Durability
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.requests import RequestKey
from backwire_server.sessions.scope import UNBOUNDED, Unbounded
from backwire_server.sessions.session import Session
from backwire_server.sessions.spec import SessionSpec
from backwire_server.sessions.store.store import HERE, SessionStore
from backwire_server.sessions.training.accumulator import Normalization
from backwire_server.sessions.training.versions import Array
from backwire_server.storage.carrier import FileCarrier
from backwire_server.storage.checkpoints.pacing import DUE_BYTES
from backwire_server.storage.manifest import MANIFEST
from backwire_server.storage.vault import FileVault

SECONDS = 30.0
ALWAYS, NEVER = 1, DUE_BYTES
"""After how many bytes of journal a checkpoint is due: after every mutation, or after none here."""

Do = Callable[[Session, RequestKey | None], Any]


class Disk:
    """A data directory, and the stores that had it one after another; `store` is the one that has it.

    One that is dropped writes no more, as if its process had been killed.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.stores: list[tuple[SessionStore, FileVault]] = []
        self._elsewhere = SessionStore(Limits())

    def open(
        self,
        durability: Durability = Durability.JOURNAL,
        checkpoint_bytes: int = NEVER,
        home: Home = HERE,
        max_disk_bytes: int | None = None,
        **limits: Any,
    ) -> SessionStore:
        """Returns a store for the directory; the one before is dropped. Waits until its sessions are recovered."""
        store = self.begin(durability, checkpoint_bytes, home, max_disk_bytes, **limits)
        recovered = threading.Event()
        store.when_recovered(recovered.set)
        assert recovered.wait(SECONDS)
        return store

    def begin(
        self,
        durability: Durability = Durability.JOURNAL,
        checkpoint_bytes: int = NEVER,
        home: Home = HERE,
        max_disk_bytes: int | None = None,
        **limits: Any,
    ) -> SessionStore:
        """Returns a store that may still be recovering."""
        if self.stores:
            self.stores[-1][1].close()  # what is written in the background is written
        held = Limits(**limits)
        vault = FileVault(
            self.directory,
            default=durability,
            limits=held,
            max_disk_bytes=max_disk_bytes,
            owns=home.owns,
            checkpoint_bytes=checkpoint_bytes,
        )
        self.stores.append((SessionStore(held, home, vault, FileCarrier(held)), vault))
        return self.store

    @property
    def store(self) -> SessionStore:
        return self.stores[-1][0]

    def undisturbed(self) -> Session:
        """A session of the network that is kept in memory alone, and to which nothing ever happens."""
        return create(self._elsewhere)

    def files(self) -> dict[str, bytes]:
        """All bytes of all sessions."""
        root = self.directory / "sessions"
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    @contextmanager
    def manifest(self, session: Session) -> Iterator[dict[str, Any]]:
        """The manifest of a session, which is written again with what was changed in it, as if it had been so."""
        path = self.directory / "sessions" / session.session_id / MANIFEST
        fields = json.loads(path.read_bytes())
        yield fields
        del fields["sha256"]
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        path.write_text(json.dumps({**fields, "sha256": hashlib.sha256(text.encode()).hexdigest()}))

    def __enter__(self) -> "Disk":
        return self

    def __exit__(self, *_: object) -> None:
        for store in (self._elsewhere, *(each[0] for each in self.stores)):
            store.close()


def network(seed: int = 7) -> SessionSpec:
    """A network with Dropout, running means, momentum and averages: all that a replay must bring back."""
    x, t = bw.input("x", ("batch", 4)), bw.input("t", ("batch", 2))
    hidden = bw.batch_norm(bw.dense(x, 6, name="in"), name="norm")
    y = bw.dense(bw.dropout(bw.tanh(hidden)), 2, name="out")
    graph = bw.graph(loss=bw.mean(bw.squared_error(y, t)), outputs={"y": y})
    optimizer = bw.SGD(0.1, momentum=0.9, average_decay=0.5).to_proto()
    return session_spec(pb.CreateSessionRequest(graph=graph.proto, optimizer=optimizer, seed=seed), Limits())


def dot() -> SessionSpec:
    """The graph of `tests.graphs`, where the gradient by w is x."""
    return session_spec(pb.CreateSessionRequest(graph=dot_graph(), optimizer=bw.SGD(0.5).to_proto()), Limits())


def batch(number: int) -> Mapping[str, Array]:
    """Inputs of the network."""
    draw = np.random.default_rng(number)
    return {"x": draw.normal(size=(3, 4)).astype("f4"), "t": draw.normal(size=(3, 2)).astype("f4")}


def train(number: int) -> Do:
    return lambda session, key: session.train_step(UNBOUNDED, TrainCall(batch(number), ("y",)), key)


def forward(number: int, name: str = "") -> Do:
    return lambda session, key: session.forward(UNBOUNDED, ForwardCall(batch(number), forward_id=name), key)


def backward(name: str, **how: Any) -> Do:
    return lambda session, key: session.backward(UNBOUNDED, BackwardCall(name, **how), key)


def step(**how: Any) -> Do:
    return lambda session, key: session.step(UNBOUNDED, StepOptions(**how), key)


def _set(session: Session, key: RequestKey | None) -> Any:
    values = {"in/bias": np.arange(6, dtype="f4"), "norm/mean": np.full(6, 0.25, "f4")}
    return session.set_parameters(UNBOUNDED, values, key)


def _train_under_lease(session: Session, key: RequestKey | None) -> Any:
    return session.train_step(UNBOUNDED, TrainCall(batch(9), weight=2.0), key, lease=1)


TOUR: Mapping[str, Do] = {
    "train": train(1),
    "train again": train(2),
    "forward p": forward(3, "p"),
    "forward q": forward(4, "q"),
    "set parameters": _set,
    "backward p": backward("p", retain=True, wrt=("x",)),
    "backward p again": backward("p", weight=0.5, wrt=("x",)),
    "step": step(normalization=Normalization.MEAN, digest=True),
    "forward r": forward(5, "r"),
    "backward q": backward("q", wrt=("x", "t")),
    "zero gradients": lambda session, key: session.zero_gradients(UNBOUNDED, key),
    "backward r": backward("r", output_gradients={"y": np.ones((3, 2), "f4")}),
    "step at a rate": step(learning_rate=0.5, expected_step=3),
    "attach": lambda session, key: session.attach(UNBOUNDED, "me", 60.0, False, key),
    "train under the lease": _train_under_lease,
    "detach": lambda session, key: session.detach(UNBOUNDED, 1, key),
    "forward s": forward(6, "s"),
    "forward without a name": forward(7),
    "backward s": backward("s", weight=3.0),
    "attach again": lambda session, key: session.attach(UNBOUNDED, "you", 60.0, False, key),
}
"""Every kind of mutation, in an order in which they are accepted, by names for their request ids."""


def key_of(name: str) -> RequestKey:
    return RequestKey(name, b"\x01")


def do(session: Session, *names: str) -> list[Any]:
    """Does these parts of the tour, and returns the answers in a form that compares."""
    return [told(TOUR[name](session, key_of(name))) for name in names]


def create(store: SessionStore, spec: SessionSpec | None = None, **how: Any) -> Session:
    return store.get(store.create(UNBOUNDED, spec or network(), **how).session_id)


@dataclass(frozen=True)
class Standing:
    """What others see of a session."""

    digest: str
    step: int
    contributions: int
    passes: tuple[str, ...]
    lease: Any


def standing(session: Session) -> Standing:
    digest = session.digest(UNBOUNDED)
    info = session.info()
    return Standing(digest, info.step, info.contributions, info.forward_ids, info.lease)


def damage(path: Path, at: int) -> None:
    """Turns a bit of a file."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def killed(disk: Disk, session: Session, **how: Any) -> Session:
    """The session in the store of the next process, after one that had no time to write anything."""
    return disk.open(**how).get(session.session_id)


class Gone(Unbounded):
    """A call whose caller has gone when it is asked for the n-th time."""

    def __init__(self, error: Exception, checks: int) -> None:
        super().__init__()
        self._error = error
        self._checks = checks

    def check(self) -> None:
        self._checks -= 1
        if self._checks < 0:
            raise self._error
