"""Expressions that the dashboards share: who is asked for, rates over Grafana's own window, sums."""

CHOSEN = 'job=~"$job", instance=~"$instance"'
"""Matchers of every query."""


def rate(metric: str, chosen: str = CHOSEN) -> str:
    """The rate of a counter."""
    return f"rate({metric}{{{chosen}}}[$__rate_interval])"


def total(by: str, expression: str) -> str:
    """A sum, "by (...)"."""
    return f"sum {by} ({expression})"


def once(by: str, expression: str) -> str:
    """One of the series that a flow has in each job that exports it, that of /metrics and that of /metrics/flows."""
    return f"max {by} ({expression})"
