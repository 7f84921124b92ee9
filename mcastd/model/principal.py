"""Principals: whom a client's certificate names, and what he may do."""

from dataclasses import dataclass

from mcastd.model.settings import Access

ANYBODY = "*"
"""Name of the principal that stands for every certificate that no other one names."""

NAME_MAX = 2048
"""Bytes of a SPIFFE id at most (SPIFFE-ID section 2.3)."""


@dataclass(frozen=True, slots=True)
class Quota:
    """What one principal may take; 0 = as much as there is."""

    streams: int = 0
    """Streams open at once: watches, sessions, lists."""
    requests: int = 0
    """Requests a second, on average over some seconds; messages of a session count as requests."""
    routes: int = 0
    """Routes of his owner."""


NO_QUOTA = Quota()


@dataclass(frozen=True, slots=True)
class Principal:
    """One client, as the configuration has it."""

    name: str
    """SPIFFE id, URI, DNS name or common name of his certificate; ANYBODY."""
    access: Access
    owner: str
    """Owner of what he writes."""
    quota: Quota = NO_QUOTA
