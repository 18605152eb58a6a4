"""Sessions on disk: record files, journals, checkpoints and recovery; knows no gRPC."""
