"""The contract that the server and every client share: protobuf messages, the tensor codec and the error reasons."""
