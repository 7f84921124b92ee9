"""Why the daemon can't run, as an exit code of sysexits.h and a sentence with the remedy."""

import os

EX_USAGE = os.EX_USAGE
"""64: the command line is wrong."""
EX_UNAVAILABLE = os.EX_UNAVAILABLE
"""69: somebody else has the socket, the state directory or the table."""
EX_OSERR = os.EX_OSERR
"""71: the system refused something that it should not."""
EX_NOPERM = os.EX_NOPERM
"""77: a capability is missing."""
EX_CONFIG = os.EX_CONFIG
"""78: configuration or state that can't be used; starting again does not help."""


class CannotRun(Exception):  # noqa: N818 - it is no error of the program
    """The daemon ends, or does not start."""

    def __init__(self, exit_code: int, message: str) -> None:
        """Name what is wrong, the value, and the remedy."""
        super().__init__(message)
        self.exit_code = exit_code
