"""Passes of a session in parts come back from its files as they were, and those of a version without parts, too."""

from pathlib import Path
from typing import Any

from tests.sessions.parted_passes import PARTS, backward, forward, given, sides
from tests.sessions.parted_steps import network, step
from tests.storage.drawing import joined
from tests.storage.durable import ALWAYS, Disk

from backwire_api.v1.storage_pb2 import JournalRecord
from backwire_server.sessions.budget import Budget
from backwire_server.sessions.calls import BackwardCall, ForwardCall, StepOptions
from backwire_server.sessions.keeping.content import recovered
from backwire_server.sessions.keeping.durable import Mutation, Recovery
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.scope import UNBOUNDED
from backwire_server.sessions.training.imaging import state_of
from backwire_server.storage.journal.mutations import decode_mutation, encode_mutation


def test_a_live_pass_of_a_checkpoint_has_the_parts_of_its_session(tmp_path: Path, make_session: Any) -> None:
    with Disk(tmp_path) as disk:
        store = disk.open(checkpoint_bytes=ALWAYS)
        session, undisturbed = (
            store.get(store.create(UNBOUNDED, network(PARTS)).session_id),
            make_session(network(PARTS)),
        )
        for each in (session, undisturbed):
            forward(each, 0, forward_id="live")
            step(each, 1)
        again = disk.open().get(session.session_id)
        for each in (again, undisturbed):
            backward(each, "live")
        assert again.digest(UNBOUNDED) == undisturbed.digest(UNBOUNDED)


def test_a_forward_of_a_version_without_parts_is_computed_at_once_again(make_session: Any) -> None:
    calls = ForwardCall(given(), forward_id="a"), BackwardCall("a"), StepOptions(), ForwardCall(given(1))
    records = [joined(encode_mutation(number, Mutation(call))) for number, call in enumerate(calls, 1)]
    assert not any(JournalRecord.FromString(record).forward.data_parallel for record in records)
    mutations = iter([decode_mutation(record)[1] for record in records])
    again = recovered(sides(PARTS), Recovery(None, mutations), Limits(), Budget(1 << 30).account())
    session = make_session(sides())
    backward(session, session.forward(UNBOUNDED, calls[0]).forward_id)
    session.step(UNBOUNDED, calls[2])
    assert session.forward(UNBOUNDED, calls[3]).forward_id in again.trainer.passes
    assert state_of(again.trainer).digest() == session.digest(UNBOUNDED)
