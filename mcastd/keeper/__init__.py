"""The privileged process: keeps the kernel's sockets, starts the server without privileges, and starts it again."""
