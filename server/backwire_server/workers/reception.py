"""A server that has others do its calls: whom it lets in, and what those are told whom it does not."""

import asyncio
from abc import abstractmethod
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from backwire_api.v1 import gradient_service_pb2 as pb
from backwire_server.access.keyring import Keyring
from backwire_server.config import Config
from backwire_server.config_parts import Capacity
from backwire_server.rpc.admission import Admission, quota_of
from backwire_server.rpc.call import let_in
from backwire_server.rpc.errors import status_of
from backwire_server.rpc.inspecting import Identify, Inspection, add_inspection
from backwire_server.rpc.listening import FAREWELL_SECONDS, bind, credentials_of, options
from backwire_server.telemetry.collecting import CertificateCollector
from backwire_server.telemetry.metrics import Metrics
from backwire_server.workers.relay import ClientCall, ordinary

SERVICE = pb.DESCRIPTOR.services_by_name["GradientService"]
METHODS = {f"/{SERVICE.full_name}/{method.name}": method for method in SERVICE.methods}


class Reception(grpc.GenericRpcHandler):
    """A server on one address, whose calls `answer` passes on. For the thread of the event loop.

    Attributes:
        address: What clients connect to; with the port that was found when 0 was asked for.
        metrics_here: What is counted of calls here.
    """

    def __init__(self, settings: Config, capacity: Capacity) -> None:
        """Prepares to take on so much at a time; `listen` comes next."""
        inspection = Inspection(settings.reflection, settings.channelz)
        self.address = settings.listen
        self.metrics_here = Metrics()
        self.metrics_here.watch(CertificateCollector(settings.access.tls_certificate))
        self._access = settings.access
        self._admission = Admission(capacity)
        self._health = health.aio.HealthServicer()
        self._background: set[asyncio.Task[None]] = set()
        self._server = grpc.aio.server(options=[*options(settings.limits, settings.capacity), *inspection.options])
        self._server.add_generic_rpc_handlers((self,))
        add_inspection(self._server, inspection, _keyring(settings))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._handlers = {path: self._handler(path, method) for path, method in METHODS.items()}

    @abstractmethod
    async def answer(self, method: Any, call: ClientCall) -> None:
        """Does a call of a method of the contract; raises what it is refused with."""

    def listen(self) -> None:
        """Takes the address; raises OSError when it cannot be had."""
        self.address = bind(self._server, self.address, credentials_of(self._access))

    async def open(self) -> None:
        """Takes calls from now on."""
        await self._server.start()

    async def drain(self, grace: float) -> bool:
        """Refuses new calls, waits up to `grace` seconds for those in progress, and tells whether all came to an end.

        Until `close`, health answers NOT_SERVING.
        """
        await self._health.enter_graceful_shutdown()
        return await asyncio.to_thread(self._admission.drain, grace)

    async def close(self, drained: bool) -> None:
        """Gives the address up, after the last answers have arrived where all were given."""
        await self._server.stop(FAREWELL_SECONDS if drained else 0)

    def tell_health(self, *, serving: bool) -> None:
        """Has health tell whether calls are answered."""
        known = health_pb2.HealthCheckResponse
        for service in ("", SERVICE.full_name):
            status = known.SERVING if serving else known.NOT_SERVING
            task = asyncio.ensure_future(self._health.set(service, status))
            self._background.add(task)
            task.add_done_callback(self._background.discard)

    def service(self, handler_call_details: Any) -> Any:
        """Returns the handler of a method; None when the contract has no such method."""
        return self._handlers.get(handler_call_details.method)

    def _handler(self, path: str, method: Any) -> Any:
        quota = quota_of(
            method.name, client_streaming=method.client_streaming, server_streaming=method.server_streaming
        )

        async def handle(_: Any, context: Any) -> None:
            await self._handle(method, quota, path, context)

        # Reading messages one by one, also where there is only one: a call is admitted before its request is read.
        return grpc.stream_stream_rpc_method_handler(handle)

    async def _handle(self, method: Any, quota: str, path: str, context: Any) -> None:
        ticket, task = None, asyncio.current_task()
        assert task is not None
        try:
            with self._admission.enter(quota) as ticket:
                ticket.on_eviction(task.cancel)
                context.add_done_callback(lambda _: ticket.finish())
                await self.answer(method, ClientCall(path, context, ticket))
            return
        except asyncio.CancelledError:
            if ticket is None or ticket.eviction is None or ticket.wait.sending:  # then nothing more can be told
                raise
            refusal = self._refusal(ticket.eviction)
        except grpc.aio.AioRpcError as error:
            trailing = ordinary(error.trailing_metadata() or (), details=True)
            refusal = (error.code(), error.details() or "", trailing)
        except Exception as error:
            refusal = self._refusal(error)
        while task.cancelling():  # else a group of tasks that failed, too, has what comes next cancelled again
            task.uncancel()
        try:
            await context.abort(*refusal)
        except grpc.aio.InternalError:  # the client is gone, which gRPC would log as an error
            raise asyncio.CancelledError from None

    def _refusal(self, error: Exception) -> tuple[Any, str, Any]:
        status, reason = status_of(error)
        self.metrics_here.refused(reason)
        told = rpc_status.to_status(status)
        return told.code, told.details, told.trailing_metadata


def _keyring(settings: Config) -> Identify:
    """Returns what tells who makes a call that no worker is asked about; only that needs the tokens here."""
    tokens = settings.access.tokens if settings.channelz else None
    return let_in if tokens is None else Keyring(Path(tokens), settings.tenants).identify
