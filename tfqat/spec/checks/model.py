"""Model: checks of `model_config`, against the data and in itself."""

from __future__ import annotations

from typing import Any

from tfqat.spec import names
from tfqat.spec.checks.check import (
    ARCHITECTURE,
    DATA,
    KIND,
    MODEL,
    Check,
    have_boxes,
    on,
    plain,
)
from tfqat.spec.report import shown

CLASSES = {"digits": 10}


def _one_source(architecture: Any, checkpoint: Any, python: Any) -> str | None:
    if isinstance(checkpoint, str) and checkpoint.endswith(".weights.h5"):
        if (architecture is None) != (python is None):
            return None
        return f"received {checkpoint}, which holds weights only; expected one of architecture and python beside it"
    given = {"architecture": architecture, "checkpoint": checkpoint, "python": python}
    stated = [f"{key}: {value}" for key, value in given.items() if value is not None]
    if len(stated) == 1:
        return None
    received = " and ".join(stated) or "none of the three"
    return f"received {received}, expected exactly one of architecture, checkpoint, python"


def _classes_stated(classes: Any, architecture: Any, targets: Any) -> str | None:
    if classes is not None:
        return None
    if architecture is not None:
        return f"is missing; expected the number of classes of {architecture}"
    if targets == "boxes":
        return f"is missing; expected the number of classes of {DATA}.function, whose boxes do not say it"
    return None


def _classes_enough(classes: Any, kind: Any, targets: Any) -> str | None:
    if classes != 1 or have_boxes(kind, targets):
        return None
    return f"received 1 with {DATA}.kind {kind}: a classifier tells at least 2 apart; a detector may have one"


def _classes_fit(classes: Any, kind: Any) -> str | None:
    expected = CLASSES.get(kind)
    if classes in (None, 1, expected) or expected is None:  # 1 is the matter of _classes_enough
        return None
    return f"received {classes}, expected {expected}, the number of classes of dataset_config.kind {kind}"


def _weights_fit(weights: Any, architecture: Any, checkpoint: Any) -> str | None:
    if weights is None:
        return None
    if architecture is not None and checkpoint is not None:
        return f"received {weights!r} beside the checkpoint {checkpoint}; expected one of the two"
    if architecture is None:
        return f"received {weights!r} without architecture; a checkpoint or a function brings its own weights"
    if weights == "imagenet" and architecture in names.CLASSIFIERS:
        return f"received imagenet, expected null or a .weights.h5 file: {architecture} has no published weights"
    if weights != "imagenet" and not weights.endswith(".weights.h5"):
        return f"received {weights!r}, expected imagenet or the path of a .weights.h5 file"
    return None


def _published_weights(weights: Any, backbone: Any) -> str | None:
    if weights != "imagenet" or backbone is None or ":" not in backbone:
        return None
    return f"received imagenet, expected null or a .weights.h5 file: the backbone {backbone} brings its own weights"


def _options_fit(options: Any, architecture: Any) -> str | None:
    stated = plain(options)
    allowed = names.options_of(architecture) if architecture else ()
    wrong = [name for name, value in stated.items() if value is not None and name not in allowed]
    if not wrong:
        return None
    takes = f"{architecture} takes {', '.join(allowed) or 'no options'}" if architecture else "they need architecture"
    return f"received {', '.join(wrong)}; {takes}"


def _shape_fits(shape: Any, size: Any, kind: Any) -> str | None:
    if shape is None or size is None:
        return None
    height, width = (size, size) if isinstance(size, int) else size
    if [height, width] == list(shape[:2]):
        return None
    return f"received {shown(list(shape))}, but {kind} images are {height} x {width} (dataset_config.image_size)"


def _channels_fit(shape: Any, kind: Any) -> str | None:
    channels = {"digits": 1, "image_folder": 3, **dict.fromkeys(names.BOX_KINDS, 3)}.get(kind)
    if shape is None or channels is None or shape[2] == channels:
        return None
    return f"received {shape[2]} channels, but {kind} images have {channels}"


CHECKS = (
    Check(MODEL, (ARCHITECTURE, f"{MODEL}.checkpoint", f"{MODEL}.python"), _one_source),
    on(f"{MODEL}.num_classes", _classes_stated, ARCHITECTURE, f"{DATA}.targets"),
    on(f"{MODEL}.num_classes", _classes_enough, KIND, f"{DATA}.targets"),
    on(f"{MODEL}.num_classes", _classes_fit, KIND),
    on(f"{MODEL}.weights", _weights_fit, ARCHITECTURE, f"{MODEL}.checkpoint"),
    on(f"{MODEL}.weights", _published_weights, f"{MODEL}.options.backbone"),
    on(f"{MODEL}.options", _options_fit, ARCHITECTURE),
    on(f"{MODEL}.input_shape", _shape_fits, f"{DATA}.image_size", KIND),
    on(f"{MODEL}.input_shape", _channels_fit, KIND),
)
