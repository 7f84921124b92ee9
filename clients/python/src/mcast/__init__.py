"""The client side of mcastd's contract: generated messages and stubs in mcast.v1, options for command lines in mcast.cli.v1.

Everything named *_pb2 and *_pb2_grpc below, and descriptors.binpb, is generated from proto/ when the distribution is built.
"""
