"""The same client for asyncio: what `backwire` has under the same names, awaited.

import backwire as bw

async with bw.aio.connect("localhost:50051") as client:
    session = await client.create_session(loss, optimizer=bw.Adam(1e-3))
    forward = await session.forward({"x": x, "y": y})
    await forward.backward()
    await session.step()

Graphs, optimizers, errors and all that is data are those of `backwire`. Whatever asks the server is awaited; a pipeline
opens at once, and what comes one by one is iterated with `async for`.
"""

from backwire.aio._client import Client, connect
from backwire.aio._forward import Forward
from backwire.aio._lease import Lease
from backwire.aio._pipeline import ForwardFuture, Pipeline
from backwire.aio._pipeline_stream import PipelineFuture
from backwire.aio._session import Session

__all__ = ["Client", "Forward", "ForwardFuture", "Lease", "Pipeline", "PipelineFuture", "Session", "connect"]
