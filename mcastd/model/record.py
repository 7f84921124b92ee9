"""What is made durable: the intent of one write, and the whole of what the store gives back at start."""

from dataclasses import dataclass, field

from mcastd.model.route import Route


@dataclass(slots=True)
class OwnerRecord:
    """An owner as it is stored."""

    name: str
    epoch: int = 0
    """Highest fencing number seen."""
    revision: int = 0
    """Of the last change of what it asks for."""


@dataclass(frozen=True, slots=True)
class InterfaceSettings:
    """What one owner has set of one interface; None = said nothing."""

    interface: str
    owner: str
    ttl_threshold: int | None = None
    pinned_tables: frozenset[int] | None = None
    revision: int = 0


@dataclass(slots=True)
class Intent:
    """The durable part of one write; all of it is committed, or none."""

    puts: list[Route] = field(default_factory=list)
    """Created and updated routes, each with its owner and revision."""
    deletes: list[bytes] = field(default_factory=list)
    """Keys."""
    owners: list[OwnerRecord] = field(default_factory=list)
    settings: list[InterfaceSettings] = field(default_factory=list)
    """Replaces what the same owner has set of the same interface; all None = nothing any more."""

    def clear(self) -> None:
        """Forget all: the write was only to be checked."""
        self.puts, self.deletes, self.owners, self.settings = [], [], [], []

    def __bool__(self) -> bool:
        """Whether there is anything to store."""
        return bool(self.puts or self.deletes or self.owners or self.settings)


@dataclass(slots=True)
class Stored:
    """Everything that was acknowledged, as the store gives it back."""

    routes: dict[bytes, Route] = field(default_factory=dict)
    owners: dict[str, OwnerRecord] = field(default_factory=dict)
    settings: dict[tuple[str, str], InterfaceSettings] = field(default_factory=dict)
    """By interface and owner."""
