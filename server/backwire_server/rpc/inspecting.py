"""Lets clients read the contract from a server (reflection), and admins see its connections (channelz).

Both need an extra of the distribution. They have threads of their own, so that whoever keeps a stream of reflection
open takes none from calls or from health.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import Default, DescriptorPool
from grpc_health.v1 import health
from grpc_status import rpc_status

from backwire_server.access import permissions
from backwire_server.rpc.call import Metadata, let_in
from backwire_server.rpc.errors import status_of
from backwire_server.rpc.methods import SERVICE
from backwire_server.sessions.caller import Caller

CHANNELZ = "grpc.channelz.v1.Channelz"
THREADS = 4

Identify = Callable[[Metadata], Caller]


@dataclass(frozen=True, slots=True)
class Inspection:
    """What may be seen of a server by gRPC's own services.

    Attributes:
        reflection: Whether all who can connect may read the contract, which is public.
        channelz: Whether admins may see connections, with the addresses of clients.
    """

    reflection: bool = False
    channelz: bool = False

    @property
    def options(self) -> list[tuple[str, int]]:
        """The options that the server must be made with."""
        return [("grpc.enable_channelz", 1)] if self.channelz else []


def add_inspection(server: Any, inspection: Inspection, identify: Identify = let_in) -> None:
    """Adds the services that are wanted to a gRPC server, threaded or asynchronous, before it is started.

    `identify` tells of a call for channelz who makes it, or raises what it is refused with.
    """
    if not (inspection.reflection or inspection.channelz):
        return
    asynchronous = isinstance(server, grpc.aio.Server)
    pool = None if asynchronous else ThreadPoolExecutor(THREADS, "backwire-inspection")
    if inspection.reflection:
        _add_reflection(server, [CHANNELZ] if inspection.channelz else [], pool)
    if inspection.channelz:
        _add_channelz(server, identify, pool)


def _add_reflection(server: Any, others: Sequence[str], pool: ThreadPoolExecutor | None) -> None:
    from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

    names = [SERVICE.full_name, health.SERVICE_NAME, reflection.SERVICE_NAME, *others]
    kind: Any = reflection.aio.ReflectionServicer if pool is None else reflection.ReflectionServicer
    servicer = kind(names, pool=_Symbols(_described(names)))
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(_Servicer(servicer, pool), server)


def _add_channelz(server: Any, identify: Identify, pool: ThreadPoolExecutor | None) -> None:
    from grpc_channelz.v1 import channelz, channelz_pb2_grpc

    servicer: Any = channelz.aio.ChannelzServicer() if pool is None else channelz.ChannelzServicer()
    channelz_pb2_grpc.add_ChannelzServicer_to_server(_Servicer(servicer, pool, identify), server)


class _Servicer:
    """A servicer whose methods have threads of their own, and where there is `identify` are for admins alone."""

    def __init__(self, servicer: Any, pool: ThreadPoolExecutor | None, identify: Identify | None = None) -> None:
        self._servicer = servicer
        self._pool = pool
        self._identify = identify

    def __getattr__(self, name: str) -> Any:
        method, identify = getattr(self._servicer, name), self._identify
        if self._pool is None:
            return method if identify is None else _guarded_async(method, identify)
        found: Any = partial(method) if identify is None else _guarded(method, identify)
        found.experimental_thread_pool = self._pool
        return found


class _Symbols:
    """A pool that also knows in which file a method is, which the runtime's does not tell and grpcurl asks."""

    def __init__(self, pool: DescriptorPool) -> None:
        self._pool = pool

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:  # noqa: N802
        """Returns the file of a message, a field, a service or a method by its full name; raises KeyError."""
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            return self._pool.FindMethodByName(symbol).containing_service.file


def _guarded(method: Any, identify: Identify) -> Any:
    def call(request: Any, context: grpc.ServicerContext) -> Any:
        refusal = _refusal(identify, context)
        if refusal is not None:
            context.abort_with_status(refusal)
        return method(request, context)

    return call


def _guarded_async(method: Any, identify: Identify) -> Any:
    async def call(request: Any, context: Any) -> Any:
        refusal = _refusal(identify, context)
        if refusal is not None:
            await context.abort(refusal.code, refusal.details, refusal.trailing_metadata)
        return await method(request, context)

    return call


def _refusal(identify: Identify, context: Any) -> Any:
    """Returns the status that a call is refused with that is not an admin's; None for one that is."""
    try:
        permissions.check(identify(context.invocation_metadata() or ()), "Channelz")
    except Exception as error:
        return rpc_status.to_status(status_of(error)[0])
    return None


def _described(names: Sequence[str]) -> DescriptorPool:
    """Returns a pool with the files of some services and what they need, and no other message of this process."""
    pool = DescriptorPool()
    seen: set[str] = set()

    def add(file: FileDescriptor) -> None:
        if file.name not in seen:
            seen.add(file.name)
            for needed in file.dependencies:
                add(needed)
            pool.AddSerializedFile(_with_json_names(file).SerializeToString())

    for name in names:
        if name != CHANNELZ:
            add(Default().FindServiceByName(name).file)
    return pool


def _with_json_names(file: FileDescriptor) -> FileDescriptorProto:
    """Returns a file in which every field has its name in JSON, which protoc leaves out and grpcurl may go by."""
    proto = FileDescriptorProto()
    file.CopyToProto(proto)
    pending = [(each, file.message_types_by_name[each.name]) for each in proto.message_type]
    while pending:
        message, descriptor = pending.pop()
        for field in message.field:
            field.json_name = descriptor.fields_by_name[field.name].json_name
        pending += [(each, descriptor.nested_types_by_name[each.name]) for each in message.nested_type]
    return proto
