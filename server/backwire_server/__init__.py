"""The Backwire server: keeps computation graphs with their state and trains them over gRPC."""
