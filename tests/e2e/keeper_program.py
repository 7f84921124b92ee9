"""`mcastd` with another server. Arguments: the path for that server, then those of mcastd."""

import sys
from pathlib import Path

from mcastd.cli.mcastd import main

FAKE = Path(__file__).with_name("fake_server.py")

if __name__ == "__main__":
    sys.exit(main(sys.argv[2:], server_command=(sys.executable, "-P", str(FAKE), sys.argv[1])))
