"""Lets `python -m mcast_controller` run it."""

import sys

from mcast_controller.main import main

sys.exit(main())
