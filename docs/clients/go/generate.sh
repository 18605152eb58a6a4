#!/bin/sh
# Makes the package backwirev1 of the .proto files, which are looked for in PROTO.
set -eu
protos=${PROTO:-../../../proto}
module=backwire.example/go
options=module=$module
for name in tensor graph optimizer gradient_service; do
  options=$options,Mbackwire_api/v1/$name.proto=$module/backwirev1
done
protoc --proto_path="$protos" \
  --go_out=. --go_opt="$options" --go-grpc_out=. --go-grpc_opt="$options" \
  backwire_api/v1/tensor.proto backwire_api/v1/graph.proto backwire_api/v1/optimizer.proto \
  backwire_api/v1/gradient_service.proto
