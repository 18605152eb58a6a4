"""As much of grpcurl as the page on clients uses, for machines without it: all through the server's reflection."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

_FAILED = 64
"""What grpcurl adds to a status code to make its exit code."""


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    with grpc.insecure_channel(options.target) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        try:
            for line in _told(options, channel, database):
                print(line)  # noqa: T201
        except grpc.RpcError as error:
            print(f"ERROR:\n  Code: {error.code().name}\n  Message: {error.details()}", file=sys.stderr)  # noqa: T201
            return _FAILED + int(error.code().value[0])
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="grpcurl", allow_abbrev=False)
    parser.add_argument("-plaintext", action="store_true", required=True)
    parser.add_argument("-d", dest="data", default="{}")
    parser.add_argument("-max-time", dest="seconds", type=float)
    parser.add_argument("target")
    parser.add_argument("wanted")
    parser.add_argument("symbol", nargs="?")
    return parser


def _told(options: argparse.Namespace, channel: Any, database: Any) -> Iterator[str]:
    pool = DescriptorPool(database)
    if options.wanted == "list":
        yield from sorted(database.get_services())
    elif options.wanted == "describe":
        service, _, name = options.symbol.rpartition(".")
        method = pool.FindServiceByName(service).FindMethodByName(name)
        yield f"{method.full_name} is a method:"
        yield f"rpc {name} ( .{method.input_type.full_name} ) returns ( .{method.output_type.full_name} );"
    else:
        service, _, name = options.wanted.partition("/")
        method = pool.FindServiceByName(service).FindMethodByName(name)
        for answer in _call(channel, method, options):
            yield json_format.MessageToJson(answer, always_print_fields_with_no_presence=False)


def _call(channel: Any, method: MethodDescriptor, options: argparse.Namespace) -> Iterator[Any]:
    request = json_format.Parse(options.data, _message(method.input_type)())
    make = channel.unary_stream if method.server_streaming else channel.unary_unary
    call = make(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=_message(method.output_type).FromString,
    )
    found = call(request, timeout=options.seconds)
    yield from found if method.server_streaming else [found]


def _message(descriptor: Any) -> Any:
    return message_factory.GetMessageClass(descriptor)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
