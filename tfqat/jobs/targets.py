"""Targets: the list of all accelerators, with their integers and the files that each is exported to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tfqat.core.scheme import Scheme
from tfqat.exporters.registry import ALWAYS, FORMATS, Format
from tfqat.graph.aimet_config import EXPORTERS
from tfqat.graph.target import Target
from tfqat.targets import load_target, summary, target_names

# Below the list: what a user may name besides the files in targets/, and what is written with every format.
REST = (
    "or path/to/config.json\n"
    f"    An AIMET-style config: what it says of ops and integers. Exported as {' or '.join(EXPORTERS)}.\n\n"
    "The first format is the usual one; export_config.formats chooses others. "
    f"Each export also has {' and '.join(ALWAYS.values())}."
)


@dataclass(frozen=True)
class Listed:
    """One accelerator.

    Attributes:
        name: as a spec names it.
        text: one line on what it is.
        activations, weights: their integers, in words.
        formats: format -> its files, the usual format first.
        source: the vendor's page.
    """

    name: str
    text: str
    activations: str
    weights: str
    formats: Mapping[str, tuple[str, ...]]
    source: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def listed_targets() -> list[Listed]:
    """All targets that are files in ``targets/``, by name."""
    return [_listed(name, load_target(name)) for name in target_names()]


def target_text(rows: Iterable[Listed]) -> str:
    """The list as text, a paragraph a target."""
    return "\n\n".join([*map(_paragraph, rows), REST])


def _paragraph(row: Listed) -> str:
    width = max(map(len, row.formats))
    formats = (f"    {name.ljust(width)}  {', '.join(_files(FORMATS[name]))}" for name in row.formats)
    numbers = f"    Activations {row.activations}; weights {row.weights}."
    return "\n".join([row.name, f"    {row.text}", numbers, *formats])


def _listed(name: str, target: Target) -> Listed:
    return Listed(
        name=name,
        text=summary(name),
        activations=_activations(target),
        weights=_weights(target),
        formats={form: tuple(FORMATS[form].files.values()) for form in target.exporters},
        source=target.source,
    )


def _files(form: Format) -> Iterator[str]:
    asked = form.on_request or {}
    for role, name in form.files.items():
        yield f"{name} ({asked[role]})" if role in asked else name


def _activations(target: Target) -> str:
    others = [choice for choice, scheme in target.activation_choices.items() if scheme != target.activation]
    choice = f" (or {', '.join(others)})" if others else ""
    return f"{_words(target.activation)}{choice}, per tensor"


def _weights(target: Target) -> str:
    whole = sorted(target.per_tensor & target.weighted)
    exceptions = f"; {', '.join(whole)} per tensor" if whole and set(whole) != target.weighted else ""
    axes = "per tensor" if whole and not exceptions else "per channel"
    return f"{_words(target.weight)}, {axes}{exceptions}"


def _words(scheme: Scheme) -> str:
    kind = f"{'int' if scheme.signed else 'uint'}{scheme.bits}"
    return f"{kind} {'symmetric' if scheme.symmetric else 'asymmetric'}"
