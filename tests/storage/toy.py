"""Sessions whose state is the list of all that was ever set, so that a test sees what storage made of it."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backwire_api import tensors
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_api.v1 import graph_pb2
from backwire_server.messages.session import session_spec
from backwire_server.sessions.calls import SetCall
from backwire_server.sessions.keeping.durable import Durability, Mutation, Recovery
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.requests import RequestKey
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.sessions.spec import SessionSpec
from backwire_server.sessions.training.state import Image, State
from backwire_server.storage.disk import Usage
from backwire_server.storage.journal.journal import Journal
from backwire_server.storage.session_files import FileSession
from backwire_server.storage.vault import FileVault

KEY = RequestKey("create", b"\x01\x02")


def spec(**request: Any) -> SessionSpec:
    value = tensors.encode(np.zeros(1))
    graph = graph_pb2.Graph(parameters=[graph_pb2.Parameter(name="w", value=value)], outputs={"w": "w"})
    return session_spec(pb.CreateSessionRequest(graph=graph, seed=7, **request), Limits())


def vault(directory: Path, durability: Durability = Durability.JOURNAL, **settings: Any) -> FileVault:
    return FileVault(directory, default=durability, limits=Limits(), **settings)


def create(directory: Path, durability: Durability = Durability.JOURNAL) -> FileSession:
    """The files of a new session `a` in a vault of its own."""
    return vault(directory).create("a", spec(), durability, KEY)


def journal(directory: Path, *, sync: bool = False) -> Journal:
    """A new journal, in a directory of its own."""
    directory.mkdir(exist_ok=True)
    made = Journal(directory, "a", (), Usage(), sync=sync)
    made.begin(1)
    return made


def mutation(value: int) -> Mutation:
    return Mutation(SetCall({"w": np.array([value], np.float64)}), RequestKey(f"request {value}", b"\x03"))


def image(history: Sequence[int], on_close: Any = (), *, settled: bool = True) -> Image:
    """The state after all of this was set: as many steps as there are values."""
    state = State(len(history), 0, 0, 0.0, {"w": np.array(history, np.float64)})
    return Image(state, settled=settled, on_close=on_close)


def values(mutations: Any) -> list[int]:
    """What the mutations set, in their order."""
    return [int(each.call.values["w"][0]) for each in mutations if isinstance(each.call, SetCall)]


def history(recovery: Recovery) -> list[int]:
    """All that was ever set, by the image and by the mutations."""
    before = [] if recovery.image is None else [int(each) for each in recovery.image.state.parameters["w"]]
    return before + values(recovery.mutations)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def held(directory: Path) -> int:
    """How many descriptors this process has of what lies in a directory; threads of others may have some elsewhere."""
    found = 0
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that by which these are looked at
            found += each.readlink().is_relative_to(directory)
    return found


def checkpoint_name(record: int) -> str:
    return f"checkpoint-{record:020d}.safetensors"


def reopened(directory: Path, session_id: str = "a") -> FileSession:
    return vault(directory).open(session_id)


def append(files: FileSession, *values: int) -> None:
    for value in values:
        files.wait(files.append(mutation(value)), UNBOUNDED)


def checkpoint(files: FileSession, *values: int) -> None:
    files.checkpoint(image(values), background=False)


def journal_of(directory: Path, *ancestors: str, sync: bool = False) -> Journal:
    return Journal(directory, "a", ancestors, Usage(), sync=sync)


def read_journal(directory: Path, record: int = 0) -> list[int]:
    """What a process that opens the journal finds after a record."""
    found = journal_of(directory).replay(record)
    mutations = values(found.mutations)
    assert found.count == len(mutations)
    return mutations


def filled_journal(directory: Path, *lengths: int) -> Path:
    """A journal with segments of so many records, which set 1, 2, 3 and so on."""
    made, last = journal(directory), 0
    for length in lengths:
        assert made.rotate() == last
        for _ in range(length):
            last += 1
            assert made.append(mutation(last)) == last
    made.close()
    return directory
