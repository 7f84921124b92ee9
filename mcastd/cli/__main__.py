"""`python -m mcastd.cli` is `mcastd`."""

import sys

from mcastd.cli.mcastd import main

sys.exit(main())
