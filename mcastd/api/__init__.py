"""The gRPC edge: the only users of grpc, protobuf and mcast.v1. What it needs of the daemon stands in ports.

No TLS below 1.3 is spoken. gRPC's Python API has no lowest version, but an environment variable for the cipher suites of TLS 1.2
alone (SSL_CTX_set_cipher_list); the one named here needs a pre-shared key, and there is none, so that each such handshake fails.
gRPC reads its environment when it is imported, so this has to stand here, before any module of the package.
"""

import os

os.environ["GRPC_SSL_CIPHER_SUITES"] = "ECDHE-PSK-AES256-CBC-SHA"
