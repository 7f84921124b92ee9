"""What one may want to change: the selector of mcastd's targets, thresholds, and durations."""

from dataclasses import dataclass, replace

DAY = 86_400.0


@dataclass(frozen=True)
class Settings:
    """Times in seconds."""

    selector: str = 'job="mcastd"'
    """Chooses the targets whose /metrics is scraped (not those of /metrics/flows)."""
    runbooks: str = "docs/runbooks"
    """Where the pages in docs/runbooks can be read: an address of your own, or as here their place in the sources."""
    rate_window: float = 300.0
    """Of recording rules: at least four scrape intervals."""
    stall_window: float = 120.0
    """An expected flow is stalled after so long without a packet: at least four scrape intervals."""
    soon: float = 60.0
    """How long what viewers notice must last before it is told."""
    later: float = 300.0
    """How long what can wait must last."""
    restart_window: float = 900.0
    """Server restarts are counted over this time."""
    restarts: int = 2
    """More of them in that time are one too many."""
    resyncs: int = 5
    """More watchers that had to begin anew, because they were too slow, in that time are a controller in trouble."""
    wrong_interface_rate: float = 0.5
    """Packets per second on a wrong interface: a single stray one is no reason to call anybody."""
    vif_ratio: float = 0.85
    """Of the 32 VIFs of a table: 28 and more."""
    membership_ratio: float = 0.9
    """Of the memberships that joins may come to."""
    loop_lag: float = 0.25
    """Event loop lag, 99th percentile: calls wait that long beside their own work."""
    certificate: float = 14 * DAY
    """Time before a certificate's end."""

    def scaled(self, factor: float) -> "Settings":
        """The same with every duration shortened, for tests with a scrape interval shortened alike."""
        names = ("rate_window", "stall_window", "soon", "later", "restart_window")
        return replace(self, **{name: max(1.0, getattr(self, name) * factor) for name in names})


def duration(seconds: float) -> str:
    """A duration as PromQL has it."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds * 1000:.0f}ms"
