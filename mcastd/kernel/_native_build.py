"""Builds mcastd.kernel._native: run it for a copy in place; setuptools takes `ffibuilder` (cffi_modules)."""

from pathlib import Path

from cffi import FFI

_HERE = Path(__file__).resolve().parent / "native"

# No libc header that has network structures of its own (netinet/in.h): the kernel's headers redefine them.
_HEADERS = """
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/icmpv6.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/mroute.h>
#include <linux/mroute6.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/seccomp.h>
"""

# The sources by their text, not by #include: the build of a wheel copies generated C elsewhere.
_SOURCES = ("mroute.c", "upcall.c", "mfc_dump.c", "notifications.c", "privileges.c", "confine.c", "joins.c")

ffibuilder = FFI()
ffibuilder.cdef((_HERE / "interface.h").read_text())
ffibuilder.set_source(
    "mcastd.kernel._native",
    _HEADERS + "".join(f'\n#line 1 "{name}"\n{(_HERE / name).read_text()}' for name in _SOURCES),
    extra_compile_args=["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-cast-function-type"],
)

if __name__ == "__main__":
    ffibuilder.compile(tmpdir=str(_HERE.parents[2]), verbose=False)
