"""Linux adapters: multicast routing sockets, upcalls, MFC dumps, links. The only user of raw sockets, cffi and pyroute2.

The keeper may import `rawsock`, `upcall` and `privileges`; everything else is the server's.
"""
