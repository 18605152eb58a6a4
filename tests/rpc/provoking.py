"""Makes a real server refuse a call, for each reason."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from backwire_api import tensors
from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_api.v1 import graph_pb2, optimizer_pb2, tensor_pb2
from backwire_server.rpc.admission import STREAMS


class Provoke:
    """Makes a real server refuse a call, for each reason."""

    def __init__(self, serve: Callable[..., Any], graph: Callable[..., graph_pb2.Graph], requests: Any) -> None:
        self.serve, self.graph, self.requests = serve, graph, requests

    def api(self, **settings: Any) -> tuple[Any, str]:
        api = self.serve(**settings)
        return api, api.create()

    def create(self, **changes: Any) -> Any:
        return self.serve().create(self.graph(**changes))

    def nodes(self, *nodes: graph_pb2.Node) -> Any:
        return self.create(nodes=[*self.graph().nodes, *nodes])

    def session_not_found(self) -> Any:
        return self.serve().info("nope")

    def pass_not_found(self) -> Any:
        api, session = self.api()
        return api.backward(session, "nope")

    def pass_exists(self) -> Any:
        api, session = self.api()
        api.forward(session, forward_id="p")
        return api.forward(session, forward_id="p")

    def invalid_graph(self) -> Any:
        return self.nodes(graph_pb2.Node(op="Add", inputs=["x", "nope"], outputs=["z"]))

    def cyclic_graph(self) -> Any:
        return self.nodes(
            graph_pb2.Node(op="Add", inputs=["x", "b"], outputs=["a"]),
            graph_pb2.Node(op="Add", inputs=["x", "a"], outputs=["b"]),
        )

    def unknown_op(self) -> Any:
        return self.nodes(graph_pb2.Node(op="Nope", inputs=["x"], outputs=["z"]))

    def unsupported_opset(self) -> Any:
        return self.create(opset_version=1)

    def invalid_attribute(self) -> Any:
        extra = {"nope": graph_pb2.Attribute(integer=1)}
        return self.nodes(graph_pb2.Node(op="Add", inputs=["x", "x"], outputs=["z"], attributes=extra))

    def not_differentiable(self) -> Any:
        api = self.serve()
        whole = graph_pb2.Input(name="n", dtype=tensor_pb2.DATA_TYPE_INT64)
        session = api.create(self.graph(inputs=[*self.graph().inputs, whole]))
        return api.backward(session, api.forward(session).forward_id, wrt=["n"])

    def invalid_tensor(self) -> Any:
        api, session = self.api()
        broken = tensor_pb2.Tensor(dtype=tensor_pb2.DATA_TYPE_FLOAT64, shape=[3], data=b"short")
        return api.stub.Forward(pb.ForwardRequest(session_id=session, inputs={"x": broken}))

    def shape_mismatch(self) -> Any:
        api, session = self.api()
        return api.forward(session, np.ones(4))

    def dtype_mismatch(self) -> Any:
        api, session = self.api()
        return api.forward(session, np.ones(3, np.float32))

    def missing_input(self) -> Any:
        api, session = self.api()
        return api.stub.Forward(pb.ForwardRequest(session_id=session))

    def unknown_input(self) -> Any:
        api, session = self.api()
        inputs = {name: tensors.encode(np.ones(3)) for name in ("x", "nope")}
        return api.stub.Forward(pb.ForwardRequest(session_id=session, inputs=inputs))

    def unknown_output(self) -> Any:
        api, session = self.api()
        return api.forward(session, outputs=["nope"])

    def unknown_parameter(self) -> Any:
        api, session = self.api()
        return api.parameters(session, "nope")

    def invalid_value(self) -> Any:
        table = graph_pb2.Parameter(name="table", value=tensors.encode(np.ones((2, 2))))
        shape = [graph_pb2.Dimension(symbol="n")]
        lookup = graph_pb2.Graph(
            inputs=[graph_pb2.Input(name="x", dtype=tensor_pb2.DATA_TYPE_INT64, shape=shape)],
            parameters=[table],
            nodes=[graph_pb2.Node(op="Gather", inputs=["table", "x"], outputs=["rows"])],
            outputs={"rows": "rows"},
        )
        api = self.serve()
        return api.forward(api.create(lookup), np.array([0, 7]), mode=pb.MODE_EVAL)

    def invalid_optimizer(self) -> Any:
        return self.serve().create(optimizer=optimizer_pb2.Optimizer(learning_rate=-1, sgd=optimizer_pb2.Sgd()))

    def invalid_argument(self) -> Any:
        api, session = self.api()
        return api.forward(session, request_id="r" * 129)

    def invalid_page_token(self) -> Any:
        return self.serve().stub.ListSessions(pb.ListSessionsRequest(page_token="nope"))

    def request_id_reused(self) -> Any:
        api, session = self.api()
        api.train(session, request_id="r")
        return api.train(session, np.ones(3), request_id="r")

    def pass_expired(self) -> Any:
        api, session = self.api(max_passes=1)
        name = api.forward(session).forward_id
        api.forward(session)
        return api.backward(session, name)

    def no_gradients(self) -> Any:
        api, session = self.api()
        return api.step(session)

    def no_optimizer(self) -> Any:
        api = self.serve()
        return api.step(api.create(optimizer=None))

    def no_loss(self) -> Any:
        api = self.serve()
        session = api.create(self.graph(loss=""))
        return api.backward(session, api.forward(session).forward_id)

    def non_finite_gradient(self) -> Any:
        api, session = self.api()
        return api.train(session, np.array([1, np.nan, 1]))

    def result_not_retained(self) -> Any:
        api = self.serve()
        shape = [graph_pb2.Dimension(symbol="n")]
        whole = graph_pb2.Graph(
            inputs=[graph_pb2.Input(name="x", dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=shape)], outputs={"x": "x"}
        )
        session = api.create(whole)
        large = np.zeros((16 << 20) + 1, np.float32)
        api.forward(session, large, request_id="r")
        return api.forward(session, large, request_id="r")

    def step_mismatch(self) -> Any:
        api, session = self.api()
        return api.train(session, options=pb.StepOptions(expected_step=1))

    def not_splittable(self) -> Any:
        return self.serve().create(data_parallel=2)

    def stale_pass(self) -> Any:
        api = self.serve()
        session = api.create(max_staleness=0)
        name = api.forward(session).forward_id
        api.train(session)
        return api.backward(session, name)

    def invalid_export(self) -> Any:
        return self.serve().stub.ImportSession(iter([pb.ImportSessionRequest(chunk=pb.FileChunk(data=b"half"))]))

    def not_durable(self) -> Any:
        api, session = self.api()
        return api.stub.SaveCheckpoint(pb.SaveCheckpointRequest(session_id=session, name="n"))

    def lease_held(self) -> Any:
        api, session = self.api()
        request = pb.AttachSessionRequest(session_id=session, holder="me")
        api.stub.AttachSession(request)
        return api.stub.AttachSession(request)

    def writer_fenced(self) -> Any:
        api, session = self.api()
        api.stub.AttachSession(pb.AttachSessionRequest(session_id=session, holder="me"))
        return api.train(session)

    def graph_too_large(self) -> Any:
        return self.serve(max_graph_nodes=2).create()

    def pass_too_large(self) -> Any:
        api, session = self.api(max_pass_bytes=10)
        return api.forward(session)

    def message_too_large(self) -> Any:
        api = self.serve(max_message_bytes=10_000)
        many = {f"y{number}": "y" for number in range(20)}
        return api.forward(api.create(self.graph(outputs=many)))

    def call_too_large(self) -> Any:
        api, session = self.api(max_call_flops=5)
        return api.train(session)

    def too_many_sessions(self) -> Any:
        api, _ = self.api(max_sessions=1)
        return api.create()

    def out_of_memory(self) -> Any:
        return self.serve(max_total_bytes=10).create()

    def overloaded(self) -> Any:
        api, session = self.api(max_concurrent_streams=1)
        release = threading.Event()

        def requests() -> Any:
            yield from self.requests(session, {})
            release.wait(20)

        upload = api.stub.SetParameters.future(requests())
        try:
            while not api.server.admission._in_progress[STREAMS]:
                assert not upload.done()
            return api.parameters(session)
        finally:
            release.set()
            upload.result(20)

    def shutting_down(self) -> Any:
        api, session = self.api()
        api.server.admission.drain(0)
        return api.info(session)

    def internal(self) -> Any:
        api, session = self.api()
        api.server._store._register._sessions[session] = 0, object()
        return api.info(session)
