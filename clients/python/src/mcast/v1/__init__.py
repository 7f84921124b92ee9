"""The contract mcast.v1: generated messages (*_pb2) and service stubs (*_pb2_grpc); nothing here is written by hand."""
