"""Levels, leases, checkpoints and files, as messages tell them."""

from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration

from backwire_api.file_stream import encode_file
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.messages import calls, durability
from backwire_server.messages.imports import receive
from backwire_server.messages.request_keys import key_of
from backwire_server.sessions.calls import CheckpointInfo, LeaseCall
from backwire_server.sessions.errors import InvalidExport, InvalidRequest, StorageFailed
from backwire_server.sessions.keeping.durable import Durability
from backwire_server.sessions.limits import Limits


def test_every_level_has_a_number_and_none_is_the_servers() -> None:
    for number in pb.Durability.values():
        level = durability.durability_of(number)
        assert (level is None) == (number == pb.DURABILITY_UNSPECIFIED)
        assert level is None or durability.durability_to_proto(level) == number
    assert {durability.durability_of(number) for number in pb.Durability.values()} == {None, *Durability}
    with pytest.raises(InvalidRequest, match="unknown number 99") as caught:
        durability.durability_of(99)  # type: ignore[arg-type]
    assert caught.value.field == "durability"


def test_a_lease_has_a_holder_and_lasts() -> None:
    request = pb.AttachSessionRequest(holder="me")
    assert durability.lease_terms(request) == ("me", durability.LEASE_SECONDS)
    request.timeout.FromNanoseconds(1_500_000_000)
    assert durability.lease_terms(request) == ("me", 1.5)
    for wrong, field in (
        (pb.AttachSessionRequest(), "holder"),
        (pb.AttachSessionRequest(holder="x" * 129), "holder"),
        (pb.AttachSessionRequest(holder="me", timeout=Duration(seconds=0)), "timeout"),
        (pb.AttachSessionRequest(holder="me", timeout=Duration(seconds=-1)), "timeout"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            durability.lease_terms(wrong)
        assert caught.value.field == field


def test_a_lease_that_was_given_back_is_none() -> None:
    told = durability.lease_to_proto(LeaseCall(3, "me", 2.5))
    assert told is not None
    assert (told.number, told.holder, told.timeout.ToNanoseconds()) == (3, "me", 2_500_000_000)
    assert durability.lease_to_proto(LeaseCall(3, "", 0.0)) is None


@pytest.mark.parametrize("name", ["a", "7", "Best-of_2.1", "x" * 64])
def test_names_of_checkpoints(name: str) -> None:
    assert durability.checkpoint_name(name) == name
    assert durability.restore_target(pb.RestoreCheckpointRequest(name=name)) == (name, None)


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "-rf", "a/b", "../a", "a\n", "a b", "é", "x" * 65, "a\0"])
def test_what_could_lead_elsewhere_is_no_name(name: str) -> None:
    with pytest.raises(InvalidRequest, match="no name for a checkpoint") as caught:
        durability.checkpoint_name(name)
    assert caught.value.field == "name"
    with pytest.raises(InvalidRequest):
        durability.restore_target(pb.RestoreCheckpointRequest(name=name))


def test_a_session_goes_back_to_a_name_or_a_step() -> None:
    assert durability.restore_target(pb.RestoreCheckpointRequest(step=0)) == ("", 0)
    assert durability.restore_target(pb.RestoreCheckpointRequest(step=7)) == ("", 7)
    with pytest.raises(InvalidRequest, match="set name or step"):
        durability.restore_target(pb.RestoreCheckpointRequest())
    with pytest.raises(InvalidRequest, match="no step -1"):
        durability.restore_target(pb.RestoreCheckpointRequest(step=-1))


def test_a_checkpoint_is_told_with_all_it_has() -> None:
    told = durability.checkpoint_to_proto(CheckpointInfo("best", 3, "ab", 1_700_000_000.5, 12))
    assert (told.name, told.step, told.digest, told.size_bytes) == ("best", 3, "ab", 12)
    assert told.create_time.ToNanoseconds() == 1_700_000_000_500_000_000


def test_the_lease_is_not_part_of_the_content() -> None:
    def key(lease: int) -> object:
        return key_of(pb.StepRequest(session_id="s", request_id="r", lease=lease))

    assert key(0) == key(1) == key(2)


def test_what_a_step_waits_for() -> None:
    found = calls.step_options(pb.StepOptions(after_contributions=8, digest=True))
    assert (found.after_contributions, found.digest) == (8, True)
    with pytest.raises(InvalidRequest, match="give 0 or more"):
        calls.step_options(pb.StepOptions(after_contributions=-1))
    assert (
        calls.train_call(pb.TrainStepRequest(options=pb.StepOptions(after_contributions=1))).options.after_contributions
        == 1
    )
    with pytest.raises(InvalidRequest, match="nobody else's") as caught:
        calls.train_call(pb.TrainStepRequest(options=pb.StepOptions(after_contributions=2)))
    assert caught.value.field == "options.after_contributions"


def requests(data: bytes, request_id: str = "r") -> list[pb.ImportSessionRequest]:
    found = [pb.ImportSessionRequest(chunk=chunk) for chunk in encode_file([data])]
    found[0].request_id = request_id
    found[0].durability = pb.DURABILITY_FSYNC
    return found


def test_a_file_is_received_and_its_content_tells_repetitions_apart(tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    keys = []
    for data in (b"one" * 1_000_000, b"one" * 1_000_000, b"two" * 1_000_000):
        stream = requests(data)
        received = receive(stream[0], stream, path, Limits())
        assert Path(path).read_bytes() == data
        assert received.durability == pb.DURABILITY_FSYNC
        assert not received.chunk.data
        keys.append(key_of(received))
    assert keys[0] == keys[1] != keys[2]


def test_a_file_that_does_not_come_whole_is_refused(tmp_path: Path) -> None:
    path, stream = str(tmp_path / "file"), requests(bytes(3 << 20))
    with pytest.raises(InvalidExport, match="broke off"):
        receive(stream[0], stream[:-1], path, Limits())
    stream[1].request_id = "another"
    with pytest.raises(InvalidRequest, match="changes within the stream"):
        receive(stream[0], stream, path, Limits())


def test_a_file_that_no_session_could_fill_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backwire_server.messages.imports.HEAD_BYTES", 1_000)
    path, stream = tmp_path / "file", requests(bytes(3 << 20))
    with pytest.raises(InvalidExport, match="more than 1,800 bytes"):
        receive(stream[0], stream, str(path), Limits(max_parameter_bytes=100))
    assert path.stat().st_size <= 1_800


def test_a_disk_that_cannot_be_written_is_told_as_such(tmp_path: Path) -> None:
    stream = requests(b"data")
    with pytest.raises(StorageFailed, match="make room") as caught:
        receive(stream[0], stream, str(tmp_path / "nowhere" / "file"), Limits())
    assert caught.value.retry_after is not None
