"""Sessions: the state of models in training and everything that may happen to it; knows neither gRPC nor protobuf."""
