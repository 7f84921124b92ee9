"""Prints what `mcastctl top` shows, for docs/top.md: `python -m tools.screen` (as root; needs tmux)."""

import time

from mcastd.model.address import Family
from tests.e2e.ctl import PROGRAM, Ctl
from tests.e2e.router import Router
from tests.e2e.tmux import Tmux
from tests.testbed import Testbed, become_able

SIZE = (124, 14)
STALL_SECONDS = 8.0


def main() -> None:
    """Forward some flows of both families, one on a wrong interface and one that has stopped, and print the screen."""
    reason = become_able()
    if reason:
        raise SystemExit(f"no network namespaces can be made here: {reason}")
    with Testbed() as bed, Router(bed, Family.IPV4, receivers=3) as router:
        first, second, wrong, still = (router.sender(number) for number in range(1, 5))
        sixth = router.star.source.sender("ff3e::1", size=1316)
        router.put(
            router.route(first, "down1", "down2"),
            router.route(second, "down2"),
            router.route(wrong, "down1", iif="down2"),
            router.route(still, "down1", monitored=True),
            router.route(5, "down3", iif="nowhere"),
        )
        router.family, router.source = Family.IPV6, router.star.source.ipv6
        router.put(router.route(sixth, "down1", "down3"))
        still.send(100)
        for sender, rate in ((first, 800), (second, 90), (wrong, 20), (sixth, 350)):
            sender.start(rate)
        ctl = Ctl(f"unix:{router.daemon.socket}")
        with Tmux([*PROGRAM, "top"], ctl.environment, *SIZE) as tmux:
            time.sleep(STALL_SECONDS)
            print(tmux.screen().replace(f"unix:{router.daemon.socket}", "unix:/run/mcastd/mcastd.sock"))
        print(ctl.run("top", "--count", "1", "--rows", "3"))


if __name__ == "__main__":
    main()
