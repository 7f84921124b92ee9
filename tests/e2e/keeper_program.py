"""`mcastd` with another server. Arguments: the path for that server, then those of mcastd."""

import os
import sys
from pathlib import Path

from mcastd.cli.mcastd import main
from mcastd.keeper import succession

FAKE = Path(__file__).with_name("fake_server.py")

if "MCASTD_TEST_PREPARE_SECONDS" in os.environ:
    succession.PREPARE_SECONDS = float(os.environ["MCASTD_TEST_PREPARE_SECONDS"])

if __name__ == "__main__":
    sys.exit(main(sys.argv[2:], server_command=(sys.executable, "-P", str(FAKE), sys.argv[1])))
