"""Check: a rule that compares several values of a spec, and what the rules of all sections share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tfqat.spec import names

MODEL, DATA, DETECTION, TRAIN, QUANT, EXPORT = (
    "model_config",
    "dataset_config",
    "detection_config",
    "training_config",
    "quantization_config",
    "export_config",
)
BOX_DATA = f"data of kind {', '.join(names.BOX_KINDS)}, or python with targets: boxes"
ARCHITECTURE, KIND = f"{MODEL}.architecture", f"{DATA}.kind"
RANGES, VERSION = f"{QUANT}.ranges", f"{EXPORT}.tensorrt_version"
FORMATS, TARGET = f"{EXPORT}.formats", f"{QUANT}.target"


@dataclass(frozen=True)
class Check:
    """One rule.

    Attributes:
        key: the dotted key that is at fault.
        reads: the dotted keys whose values ``find`` takes, in this order.
        find: values -> what is wrong, or None.
    """

    key: str
    reads: tuple[str, ...]
    find: Callable[..., str | None]


def on(key: str, find: Callable[..., str | None], *others: str) -> Check:
    return Check(key, (key, *others), find)


def only_for(choices: tuple[str, ...], default: Any) -> Callable[[Any, Any], str | None]:
    """An option that only some choices honor must keep its default with the others."""

    def find(value: Any, choice: Any) -> str | None:
        if value == default or choice in choices:
            return None
        return f"received {value}, which {choice} does not use; expected it with {' or '.join(choices)} only"

    return find


def plain(section: Any) -> dict[str, Any]:
    return section if isinstance(section, dict) else section.model_dump()


def have_boxes(kind: Any, targets: Any) -> bool:
    return kind in names.BOX_KINDS or targets == "boxes"
