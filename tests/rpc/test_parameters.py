"""Parameters are set and read over streams, also as moving averages."""

from typing import Any

import grpc
import numpy as np
import pytest

from backwire_api import chunk_stream, tensors
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_api.v1 import graph_pb2, optimizer_pb2, tensor_pb2
from backwire_server.rpc.admission import STREAMS

X = np.array([1.0, -2.0, 4.0])
TABLE = np.array([10.0, 20.0, 30.0])


def test_parameters_of_many_chunks_travel_both_ways(api: Any) -> None:
    large = np.random.default_rng(0).normal(size=(3, 1 << 17))
    node = graph_pb2.Node(op="Add", inputs=["a", "b"], outputs=["y"])
    names = [graph_pb2.Parameter(name=name, value=tensors.encode(np.zeros_like(large))) for name in "ab"]
    session = api.create(graph_pb2.Graph(parameters=names, nodes=[node], outputs={"y": "y"}))
    assert api.set_parameters(session, {"b": large}) == 0
    assert list(api.parameters(session)) == ["a", "b"]
    np.testing.assert_array_equal(api.parameters(session, "b")["b"], large)
    np.testing.assert_array_equal(api.parameters(session, "a")["a"], 0)


class TestSetParametersStream:
    def chunk(self, name: str, value: Any) -> tensor_pb2.TensorChunk:
        ((only, data),) = chunk_stream.encode_chunks(name, value)
        only.data = bytes(data)
        return only

    def test_an_empty_stream_is_refused(self, api: Any, refused: Any) -> None:
        assert refused(lambda: api.stub.SetParameters(iter(()))).reason == "INVALID_ARGUMENT"

    def test_a_value_that_does_not_fit_is_refused_at_its_first_chunk(self, api: Any, refused: Any) -> None:
        session = api.create()
        announced = tensor_pb2.TensorChunk(
            name="w", dtype=tensor_pb2.DATA_TYPE_FLOAT64, shape=[1 << 40], data=b"12345678"
        )
        told = refused(
            lambda: api.stub.SetParameters(iter([pb.SetParametersRequest(session_id=session, chunk=announced)]))
        )
        assert (told.reason, told.field) == ("SHAPE_MISMATCH", "parameters[w]")

    @pytest.mark.parametrize(
        "cut", ["missing end", "wrong checksum", "twice", "other session", "no last message", "two last messages"]
    )
    def test_a_malformed_stream_changes_nothing(self, api: Any, refused: Any, cut: str) -> None:
        session = api.create()
        c, w = self.chunk("c", np.zeros(3)), self.chunk("w", np.zeros(3))
        if cut == "missing end":
            w.data = w.data[:8]
            w.ClearField("crc32")
        elif cut == "wrong checksum":
            w.crc32 ^= 1
        chunks = [c, w, c] if cut == "twice" else [c, w]
        requests = [
            pb.SetParametersRequest(session_id=session),
            *(pb.SetParametersRequest(chunk=each) for each in chunks),
        ]
        if cut == "other session":
            requests[-1].session_id = "another"
        if cut == "two last messages":
            requests[-2].last = True
        requests[-1].last = cut != "no last message"
        told = refused(lambda: api.stub.SetParameters(iter(requests)))
        assert told.reason == ("INVALID_TENSOR" if cut in ("missing end", "wrong checksum") else "INVALID_ARGUMENT")
        np.testing.assert_array_equal(api.parameters(session)["c"], [10, 20, 30])
        if "last" in cut:
            assert told.field == "last"

    def test_the_last_message_may_have_the_last_chunk(self, api: Any) -> None:
        session = api.create()
        c, w = self.chunk("c", np.zeros(3)), self.chunk("w", np.zeros(3))
        first = pb.SetParametersRequest(session_id=session, chunk=c)
        api.stub.SetParameters(iter([first, pb.SetParametersRequest(chunk=w, last=True)]))
        for value in api.parameters(session).values():
            np.testing.assert_array_equal(value, np.zeros(3))

    @pytest.mark.parametrize("place", ["between two parameters", "within a parameter"])
    def test_a_stream_that_breaks_off_changes_nothing(self, api: Any, until: Any, place: str) -> None:
        session = api.create()

        def requests() -> Any:
            yield pb.SetParametersRequest(session_id=session)
            yield pb.SetParametersRequest(chunk=self.chunk("c", np.zeros(3)))
            if place == "within a parameter":
                cut = self.chunk("w", np.zeros(3))
                cut.data = cut.data[:8]
                yield pb.SetParametersRequest(chunk=cut)
            raise RuntimeError

        with pytest.raises(grpc.RpcError):
            api.stub.SetParameters(requests())
        until(lambda: not api.server.admission._in_progress[STREAMS])
        np.testing.assert_array_equal(api.parameters(session)["c"], [10, 20, 30])

    def test_an_end_between_two_parameters_that_gRPC_calls_orderly_changes_nothing(
        self, api: Any, refused: Any
    ) -> None:
        session = api.create()
        requests = [pb.SetParametersRequest(session_id=session, request_id="r", chunk=self.chunk("c", np.zeros(3)))]
        assert refused(lambda: api.stub.SetParameters(iter(requests))).field == "last"
        np.testing.assert_array_equal(api.parameters(session)["c"], [10, 20, 30])
        api.set_parameters(session, {"c": np.ones(3)}, "r")
        np.testing.assert_array_equal(api.parameters(session)["c"], np.ones(3))


class TestAverages:
    def averaging(self, api: Any, decay: float = 0.75) -> Any:
        return api.create(
            optimizer=optimizer_pb2.Optimizer(learning_rate=0.5, average_decay=decay, sgd=optimizer_pb2.Sgd())
        )

    def test_follow_the_trainable_parameters(self, api: Any) -> None:
        session = self.averaging(api)
        for _ in range(3):
            api.train(session)
        w = [[1.0, 2.0, 3.0] - number * 0.5 * X for number in (1, 2, 3)]
        expected = 0.75 * (0.75 * w[0] + 0.25 * w[1]) + 0.25 * w[2]
        found = api.parameters(session, averaged=True)
        assert list(found) == ["w", "c"]
        np.testing.assert_allclose(found["w"], expected, rtol=1e-15)
        np.testing.assert_array_equal(found["c"], TABLE, "frozen parameters have no average")
        np.testing.assert_array_equal(api.parameters(session)["w"], w[2], "the values themselves stay")
        assert list(api.parameters(session, "c", "w", averaged=True)) == ["c", "w"]

    def test_are_the_parameters_at_step_0(self, api: Any) -> None:
        session = self.averaging(api)
        np.testing.assert_array_equal(api.parameters(session, averaged=True)["w"], [1, 2, 3])
        api.set_parameters(session, {"w": np.full(3, 7.0)})
        np.testing.assert_array_equal(api.parameters(session, averaged=True)["w"], [7, 7, 7])

    def test_tell_their_step_and_stay_as_they_were_while_they_are_read(self, api: Any) -> None:
        session = self.averaging(api, decay=0.5)
        api.train(session)
        stream = api.stub.GetParameters(pb.GetParametersRequest(session_id=session, names=["w"], averaged=True))
        api.train(session)
        (part,) = stream
        assert part.step in (1, 2)
        w = [1.0, 2.0, 3.0] - 0.5 * X
        ((_, found),) = chunk_stream.decode_chunks([(part.chunk, part.chunk.data)], 1 << 20)
        np.testing.assert_array_equal(found, w if part.step == 1 else w - 0.25 * X)

    @pytest.mark.parametrize("optimizer", ["none", "without averages"])
    def test_are_refused_when_the_session_keeps_none(self, api: Any, refused: Any, optimizer: str) -> None:
        plain = optimizer_pb2.Optimizer(learning_rate=0.5, sgd=optimizer_pb2.Sgd())
        session = api.create(optimizer=None if optimizer == "none" else plain)
        told = refused(lambda: api.parameters(session, averaged=True))
        assert (told.code, told.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
        assert told.field == "averaged"
        assert "average_decay" in told.message

    def test_of_unknown_parameters_are_refused(self, api: Any, refused: Any) -> None:
        session = self.averaging(api)
        assert refused(lambda: api.parameters(session, "nope", averaged=True)).reason == "UNKNOWN_PARAMETER"


def test_steps_go_on_while_a_reader_takes_its_time(api: Any) -> None:
    large = np.zeros((4, 1 << 17))
    value = graph_pb2.Parameter(name="w", value=tensors.encode(large))
    nodes = [
        graph_pb2.Node(op="Mul", inputs=["w", "x"], outputs=["y"]),
        graph_pb2.Node(
            op="ReduceSum", inputs=["y"], outputs=["l"], attributes={"keepdims": graph_pb2.Attribute(integer=0)}
        ),
    ]
    scalar = graph_pb2.Input(name="x", dtype=tensor_pb2.DATA_TYPE_FLOAT64)
    session = api.create(
        graph_pb2.Graph(inputs=[scalar], parameters=[value], nodes=nodes, outputs={"y": "y"}, loss="l")
    )
    stream = api.stub.GetParameters(pb.GetParametersRequest(session_id=session))
    first = next(stream)
    for _ in range(3):
        api.train(session, np.float64(2.0))
    chunks = [first, *stream]
    assert {part.step for part in chunks} == {0}
    ((_, found),) = chunk_stream.decode_chunks(((part.chunk, part.chunk.data) for part in chunks), 1 << 30)
    np.testing.assert_array_equal(found, large)
    np.testing.assert_array_equal(api.parameters(session)["w"], large - 3 * 0.5 * 2)


def test_a_reader_that_goes_away_lets_go_of_what_it_read(api: Any, until: Any) -> None:
    value = graph_pb2.Parameter(name="w", value=tensors.encode(np.zeros((64, 1 << 17))))
    session = api.create(graph_pb2.Graph(parameters=[value], outputs={"w": "w"}))
    version = api.server._store.get(session)._keeper.content.trainer.parameters.current
    stream = api.stub.GetParameters(pb.GetParametersRequest(session_id=session))
    next(stream)
    assert version.holders == 1
    stream.cancel()
    until(lambda: version.holders == 0)
    until(lambda: not api.server.admission._in_progress[STREAMS])
