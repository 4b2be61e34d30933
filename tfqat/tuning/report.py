"""TuneReport: what one method changed, by how much, and what it left as it was."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Change:
    """One thing that was changed: where, and the method's measure of it (``TuneReport.measure``) before and after."""

    where: str
    before: float
    after: float


@dataclass(frozen=True)
class TuneReport:
    """What one method did.

    Attributes:
        method: its name in a spec.
        measure: what the numbers of a Change are; less is better.
        changes: in the order of the model.
        left: (op, why) of those that it left as they were.
    """

    method: str
    measure: str
    changes: tuple[Change, ...]
    left: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.method}: {len(self.changes)} changed; {self.measure}, before -> after:"]
        width = max((len(change.where) for change in self.changes), default=0)
        lines += [f"  {c.where:<{width}}  {c.before:.4g} -> {c.after:.4g}" for c in self.changes]
        lines += [f"  left: {', '.join(names)}: {why}" for why, names in self.reasons().items()]
        return "\n".join(lines)

    def reasons(self) -> dict[str, list[str]]:
        """Why -> the ops that were left for it."""
        found: dict[str, list[str]] = {}
        for name, why in self.left:
            found.setdefault(why, []).append(name)
        return found
