"""Mutations survive the journal to the bit, and nothing else is taken for one."""

import random
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.storage.drawing import counts, ids, joined, keys, mutating_calls, told

from backwire_api.tensors import buffer
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_api.v1 import storage_pb2
from backwire_api.v1.tensor_pb2 import DATA_TYPE_FLOAT32, Tensor
from backwire_server.sessions.calls import ForwardCall, TrainCall, ZeroCall
from backwire_server.sessions.errors import MessageTooLarge
from backwire_server.sessions.keeping.durable import Mutation
from backwire_server.sessions.requests import RequestKey
from backwire_server.storage.damage import Damaged
from backwire_server.storage.journal import mutations
from backwire_server.storage.journal.mutations import decode_mutation, encode_mutation

TOO_SHORT = Tensor(dtype=DATA_TYPE_FLOAT32, shape=[2], data=b"1")
MUTATIONS = st.builds(Mutation, mutating_calls, st.none() | keys, st.lists(ids, max_size=3).map(tuple))


def batch(nbytes: int) -> TrainCall:
    return TrainCall({"x": np.random.default_rng(0).normal(size=nbytes // 8), "y": np.arange(10)})


@given(number=counts, mutation=MUTATIONS)
def test_a_mutation_comes_back_with_the_same_bits(number: int, mutation: Mutation) -> None:
    found, again = decode_mutation(joined(encode_mutation(number, mutation)))
    assert found == number
    assert told(again, ordered=False) == told(mutation, ordered=False)  # protobuf keeps no order of maps


def test_large_tensors_are_not_copied_on_the_way_out_and_shared_on_the_way_in() -> None:
    call = batch(400_000)
    parts = encode_mutation(1, Mutation(call))
    assert any(np.shares_memory(part, call.inputs["x"]) for part in parts if not isinstance(part, bytes))
    data = joined(parts)
    array = decode_mutation(data)[1].call.inputs["x"]
    assert np.shares_memory(array, np.frombuffer(data, np.uint8))
    assert array.flags.aligned
    assert not array.flags.writeable


def test_what_was_accepted_is_not_measured_against_a_message_again() -> None:
    _, mutation = decode_mutation(joined(encode_mutation(1, Mutation(ForwardCall({}, chunked=False)))))
    assert mutation.call.chunked


def test_a_record_is_a_message_of_the_contract_that_names_neither_session_nor_request_inside() -> None:
    key = RequestKey("r", b"digest")
    record = storage_pb2.JournalRecord.FromString(joined(encode_mutation(7, Mutation(batch(80), key, ["p"]))))
    assert (record.number, record.request_id, record.fingerprint) == (7, "r", b"digest")
    assert record.dropped_forward_ids == ["p"]
    inner = record.train_step
    assert (inner.session_id, inner.request_id, inner.lease, set(inner.inputs)) == ("", "", 0, {"x", "y"})


def test_a_record_that_nothing_could_read_is_refused_before_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(joined(encode_mutation(1, Mutation(batch(4_000)))))
    monkeypatch.setattr(mutations, "MAX_RECORD_BYTES", size)
    encode_mutation(1, Mutation(batch(4_000)))
    with pytest.raises(MessageTooLarge, match="use a smaller batch"):
        encode_mutation(1, Mutation(batch(4_008)))


@pytest.mark.parametrize(
    "record",
    [
        storage_pb2.JournalRecord(number=3),
        storage_pb2.JournalRecord(step=pb.StepRequest(options=pb.StepOptions(non_finite=99))),  # type: ignore[arg-type]
        storage_pb2.JournalRecord(forward=pb.ForwardRequest(inputs={"x": TOO_SHORT})),
    ],
    ids=["without mutation", "unknown policy", "wrong tensor"],
)
def test_a_record_without_sense_is_refused(record: storage_pb2.JournalRecord) -> None:
    with pytest.raises(Damaged):
        decode_mutation(record.SerializeToString())


@pytest.mark.parametrize("mutation", [Mutation(batch(400)), Mutation(batch(400_000)), Mutation(ZeroCall())])
def test_damage_is_refused_or_read_as_some_mutation_but_never_fails_otherwise(mutation: Mutation) -> None:
    data = joined(encode_mutation(1, mutation))
    draw = random.Random(0)
    for _ in range(300):
        at = draw.randrange(min(len(data), 200))
        bad = draw.choice((data[:at], data[:at] + draw.randbytes(1) + data[at + 1 :], draw.randbytes(20)))
        with suppress(Damaged):
            assert isinstance(decode_mutation(bad)[1], Mutation)


def test_pieces_are_bytes_or_views_that_any_writer_takes() -> None:
    assert all(isinstance(buffer(part), bytes | memoryview) for part in encode_mutation(1, Mutation(batch(4_000))))
