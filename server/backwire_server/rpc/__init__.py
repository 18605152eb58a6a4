"""The server's side of the contract: everything that knows gRPC."""
