"""The contract's messages turned into what the domain works with, and back; knows protobuf, and no gRPC."""
