"""A client that waits for a server is told by the others whether that lives."""

from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from tests.rpc.conftest import TIMEOUT, Api

from backwire_api.metadata import FOLLOWS_KEY, WAITS_KEY
from backwire_api.v1 import gradient_service_pb2 as pb


def told(api: Api, waits_at: str, session: str = "any") -> dict[str, str]:
    """What a server tells of one at an address."""
    metadata = ((FOLLOWS_KEY, "1"), (WAITS_KEY, waits_at))
    with pytest.raises(grpc.RpcError) as caught:
        api.stub.GetSessionHistory(pb.GetSessionHistoryRequest(session_id=session), timeout=TIMEOUT, metadata=metadata)
    status: Any = rpc_status.from_call(caught.value)
    info = error_details_pb2.ErrorInfo()
    assert next(detail.Unpack(info) for detail in status.details)
    assert info.reason == "WRONG_REPLICA"
    return dict(info.metadata)


def test_one_that_lives_is_told_as_the_owner_by_itself_and_by_others_whether_they_knew_of_it_or_not(
    replicas: tuple[Api, Api],
) -> None:
    owner, _ = replicas
    session = owner.create()
    for api in replicas:
        assert told(api, owner.server.address, session) == {"owner": owner.server.address}
    assert owner.train(session).result.step == 1, "it stayed where it was"


def test_of_one_that_is_gone_the_other_tells_that_and_where_it_is_itself(replicas: tuple[Api, Api]) -> None:
    owner, other = replicas
    address = owner.server.address
    owner.server.stop(5.0)
    assert told(other, address) == {"gone": address, "owner": other.server.address}


def test_one_of_which_nothing_can_be_read_is_not_said_to_be_gone(
    replicas: tuple[Api, Api], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, other = replicas

    def fail(_: str) -> bool:
        raise OSError("the directory is out of reach")

    assert other.server._neighbours.forwarder is not None
    monkeypatch.setattr(other.server._neighbours.forwarder, "_lives", fail)
    assert told(other, owner.server.address) == {"owner": owner.server.address}
