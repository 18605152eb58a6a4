"""A process that has imported all that a server needs, and becomes servers on demand, in milliseconds each.

`python -m tests.faults.warm` reads from the socket that is its standard input: a message for every server to start,
JSON with its `arguments` and `failpoints`, together with the three descriptors that are to be its standard streams. It
answers with the number of the process, and a descriptor of it. Each server is a process of its own, forked from this
one, which has no other thread, and runs what `python -m backwire_server` does.
"""

import json
import os
import signal
import socket
import sys
from typing import NoReturn

from backwire_server import __main__ as server
from backwire_server import machine

MESSAGE_BYTES = 1 << 16
STREAMS = 3


def main() -> None:
    """Starts servers until the socket is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # at a terminal it is for those who ask for servers
    machine.prepare(machine.Tuning(), os.environ)
    _import_all()
    asked = socket.socket(fileno=0)
    asked.send(b"ready")
    while True:
        data, streams, _, _ = socket.recv_fds(asked, MESSAGE_BYTES, STREAMS)
        if not data:
            return
        _reap()
        process = os.fork()
        if process == 0:
            request = json.loads(data)
            _become(request["arguments"], request["failpoints"], streams)
        descriptor = os.pidfd_open(process)
        socket.send_fds(asked, [str(process).encode()], [descriptor])
        for each in (descriptor, *streams):
            os.close(each)


def _import_all() -> None:
    """Imports, and trains a step, after which what is compiled or cached at first use is there."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    import numpy as np

    import backwire_server.rpc.logs
    import backwire_server.rpc.server
    import backwire_server.storage.lock  # noqa: F401
    from backwire_server import optim
    from backwire_server.engine.graph import Graph, Input, Node, Parameter, TensorType
    from backwire_server.optim import compiled
    from backwire_server.sessions.calls import TrainCall
    from backwire_server.sessions.limits import Limits
    from backwire_server.sessions.scope import UNBOUNDED
    from backwire_server.sessions.spec import SessionSpec
    from backwire_server.sessions.store.store import SessionStore

    vector, one = TensorType.of(np.float32, (1,)), np.ones(1, np.float32)
    nodes = (Node("Mul", ("x", "w"), ("y",)), Node("ReduceSum", ("y",), ("loss",), {"keepdims": 0}))
    graph = Graph(inputs=(Input("x", vector),), parameters=(Parameter("w", vector),), nodes=nodes, loss="loss")
    store = SessionStore(Limits())
    info = store.create(UNBOUNDED, SessionSpec(graph, {"w": one}, optim.Optimizer(0.1, optim.Adam())))
    store.get(info.session_id).train_step(UNBOUNDED, TrainCall({"x": one}))
    store.close()
    compiled.adam(one.dtype, wait=True)  # the thread that compiles has ended then


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def _become(arguments: list[str], armed: str, streams: list[int]) -> NoReturn:
    from backwire_server.storage import failpoints

    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if armed:
        failpoints.arm(armed)
        os.environ[failpoints.VARIABLE] = armed  # for workers
    sys.argv[1:] = arguments
    os._exit(server.main())


if __name__ == "__main__":
    main()
