"""Placement: the plan for one model; what is quantized, which ranges are shared, and why each other op is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tfqat.core.scheme import Scheme
from tfqat.graph.kinds import IDENTITY
from tfqat.graph.rows import Row, table

# What the table does not mention.
USUAL_BITS = 8


@dataclass(frozen=True)
class Placement:
    """The plan for one model.

    Attributes:
        target: name of the target.
        rows: one a op, in order: int8, shared or float, and why.
        weights: op name -> Scheme of its kernel.
        activations: tensor name -> Scheme of the Quantizer after it.
        groups: tensor name -> name of the group whose members share one range; lone tensors are left out.
        observed: tensors inside blocks whose range is only watched (what a composite activation reads).
        changes: lines about what the rewriting changes in the model (ReLU6, BatchNorm that is folded first).
        fixed: tensor name -> real range (low, high), where the device knows no other.
        config: the document that the target was read from, where it is no file in ``targets/``.
    """

    target: str
    rows: tuple[Row, ...]
    weights: Mapping[str, Scheme]
    activations: Mapping[str, Scheme]
    groups: Mapping[str, str]
    observed: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    fixed: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    config: Mapping[str, Any] | None = None

    @property
    def shared_ops(self) -> frozenset[str]:
        """Names of the ops whose output has the range of their input."""
        return frozenset(row.op for row in self.rows if row.state == "shared")

    @property
    def int8_mac_share(self) -> float:
        """INT8 share of the multiply-accumulates, output layers aside, from 0 to 1 (1 where nothing else counts)."""
        return _share([row for row in self.rows if not row.output])

    @property
    def float_ops(self) -> dict[str, str]:
        """Op name -> why it stays float, for the ops that compute something."""
        return {row.op: row.reason for row in self.rows if row.state == "float" and row.kind not in IDENTITY}

    def __str__(self) -> str:
        lines = [(name, "input", "", "", self.range_text(name), "") for name in self.inputs]
        lines += [
            (
                row.op,
                row.kind,
                self.state_text(row),
                f"{row.macs:,}" if row.macs else "",
                self.range_text(row.op),
                row.reason,
            )
            for row in self.rows
        ]
        return "\n".join([*self.changes, *table(lines), *self._totals()])

    @property
    def inputs(self) -> list[str]:
        """The quantized model inputs: they are no ops, and so have no rows."""
        ops = {row.op for row in self.rows}
        return [tensor for tensor in self.activations if tensor not in ops]

    def state_text(self, row: Row) -> str:
        """The state of an op, with the bits of its kernel where they are unusual."""
        bits = self.weights[row.op].bits if row.op in self.weights else USUAL_BITS
        return row.state if bits == USUAL_BITS else f"{row.state}, kernel {bits} bits"

    def range_text(self, tensor: str) -> str:
        """What is done with the range of a tensor; nothing where it has none."""
        if tensor in self.observed:
            return "observed"
        if tensor not in self.activations:
            return ""
        if tensor in self.fixed:
            low, high = self.fixed[tensor]
            return f"fixed [{low:g}, {high:g}]"
        bits = self.activations[tensor].bits
        text = "quantized" if bits == USUAL_BITS else f"quantized, {bits} bits"
        group = self.groups.get(tensor)
        return text if group is None else f"{text}, tied ({group})"

    def _totals(self) -> list[str]:
        groups = len(set(self.groups.values()))
        return [
            f"target {self.target}: {len(self.weights)} kernels and {len(self.activations)} tensors quantized, "
            f"{groups} groups of tied ranges, {len(self.observed)} tensors observed",
            f"INT8 share of multiply-accumulates, output layers aside: {100 * self.int8_mac_share:.1f} %",
        ]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "target": self.target,
            "rows": [asdict(row) for row in self.rows],
            "weights": {name: asdict(scheme) for name, scheme in self.weights.items()},
            "activations": {name: asdict(scheme) for name, scheme in self.activations.items()},
            "groups": dict(self.groups),
            "observed": list(self.observed),
            "changes": list(self.changes),
            "fixed": {name: list(bounds) for name, bounds in self.fixed.items()},
            "config": self.config,
        }


def placement_from_dict(data: Mapping[str, Any]) -> Placement:
    """The Placement that ``to_dict`` wrote."""
    schemes = lambda items: {name: Scheme(**{**s, "axis": tuple(s["axis"])}) for name, s in items.items()}  # noqa: E731
    return Placement(
        target=data["target"],
        rows=tuple(Row(**row) for row in data["rows"]),
        weights=schemes(data["weights"]),
        activations=schemes(data["activations"]),
        groups=dict(data["groups"]),
        observed=tuple(data["observed"]),
        changes=tuple(data["changes"]),
        fixed={name: (low, high) for name, (low, high) in data["fixed"].items()},
        config=data["config"],
    )


def _share(rows: list[Row]) -> float:
    total = sum(row.macs for row in rows)
    return sum(row.macs for row in rows if row.state == "int8") / total if total else 1.0
