"""Owns access to the descriptor image: the contract as data, with its comments and options."""

from importlib.resources import files


def descriptor_image() -> bytes:
    """Return the serialized google.protobuf.FileDescriptorSet of every proto file, its imports and its comments.

    Parse it after importing mcast.cli.v1.options_pb2 to find the options of mcast.cli.v1 by name instead of as unknown fields.
    """
    return files("mcast").joinpath("descriptors.binpb").read_bytes()
