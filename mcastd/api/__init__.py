"""The gRPC edge: the only users of grpc, protobuf and mcast.v1. What it needs of the daemon stands in ports."""
