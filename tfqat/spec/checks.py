"""Checks: rules that compare several values of a spec; each says what is wrong at which key.

A check runs where all the keys that it reads are free of other mistakes, so that one report names everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from tfqat.exporters.registry import FORMATS, clash
from tfqat.graph.rules import Rule
from tfqat.spec import keys, names
from tfqat.spec.document import Path
from tfqat.spec.report import Problem, shown
from tfqat.spec.schema import Detection
from tfqat.targets import load_target

CLASSES = {"digits": 10}


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


def problems(values: Mapping[str, Any], faulty: set[Path]) -> Iterator[Problem]:
    """The Problems that the checks find in ``values``, of which the paths in ``faulty`` are wrong already."""
    for check in CHECKS:
        paths: list[Path] = [tuple(key.split(".")) for key in check.reads]
        if any(_related(path, wrong) for path in paths for wrong in faulty):
            continue
        message = check.find(*(keys.value_or_default(path, values) for path in paths))
        if message:
            yield Problem(tuple(check.key.split(".")), message)
    yield from _empty_rules(values, faulty)


def _related(path: Path, wrong: Path) -> bool:
    """Whether one is the other or lies within it. A mistake in a sibling (an unknown key) is no obstacle."""
    length = min(len(path), len(wrong))
    return path[:length] == wrong[:length]


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
        return f"is missing; expected the number of classes of {_DATA}.function, whose boxes do not say it"
    return None


def _classes_enough(classes: Any, kind: Any, targets: Any) -> str | None:
    if classes != 1 or _have_boxes(kind, targets):
        return None
    return f"received 1 with {_DATA}.kind {kind}: a classifier tells at least 2 apart; a detector may have one"


def _classes_fit(classes: Any, kind: Any) -> str | None:
    expected = CLASSES.get(kind)
    if classes in (None, 1, expected) or expected is None:  # 1 is the matter of _classes_enough
        return None
    return f"received {classes}, expected {expected}, the number of classes of dataset_config.kind {kind}"


def _something_to_train(epochs: Any, enable_qat: Any, weights: Any, architecture: Any, checkpoint: Any) -> str | None:
    if epochs or (enable_qat and (architecture is None or weights is not None or checkpoint is not None)):
        return None
    if not enable_qat:
        return "received 0 with enable_qat: false, so nothing would be trained; expected at least 1"
    return (
        f"received 0, so that random weights of {architecture} would be quantized; expected at least 1, or trained "
        "weights (model_config.checkpoint, model_config.weights)"
    )


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


def _have_boxes(kind: Any, targets: Any) -> bool:
    return kind in names.BOX_KINDS or targets == "boxes"


def _data_fit(architecture: Any, kind: Any, targets: Any) -> str | None:
    boxes = _have_boxes(kind, targets)
    if architecture is None or (architecture in names.DETECTORS) == boxes:
        return None
    if boxes:
        wanted = f"{names.DETECTORS[0]} to {names.DETECTORS[-1]}, or a model of your own"
        return f"received {architecture}, which finds no boxes, with data of boxes; expected {wanted}"
    return f"received {architecture}, which learns boxes, with {_DATA}.kind {kind}; expected {_BOX_DATA}"


def _for_boxes(section: Any, kind: Any, targets: Any) -> str | None:
    stated = dict(Detection.model_validate(_plain(section)))
    usual = dict(Detection())
    changed = [key for key, value in stated.items() if value != usual[key]]
    if not changed or _have_boxes(kind, targets):
        return None
    return f"received {', '.join(changed)}, but {kind} data have no boxes; expected it with {_BOX_DATA}"


def _detections_fit(detections: Any, kind: Any, targets: Any) -> str | None:
    if detections == "raw" or _have_boxes(kind, targets):
        return None
    return f"received {detections} with {_DATA}.kind {kind}, whose models find no boxes; expected raw"


def _overlap_allowed(detections: Any, overlap: Any) -> str | None:
    if detections == "raw" or overlap > 0:
        return None
    return f"received {detections} with {_DETECTION}.iou_threshold: 0, which LiteRT refuses; expected it above 0"


def _outputs_named(outputs: Any, kind: Any, targets: Any) -> str | None:
    wanted = ("box regression", "class logits") if _have_boxes(kind, targets) else ("class scores",)
    if outputs is None or len(outputs) == len(wanted):
        return None
    return f"received {', '.join(outputs)}; expected a name for each output, in this order: {', '.join(wanted)}"


def _inputs_named(inputs: Any) -> str | None:
    if inputs is None or len(inputs) == 1:
        return None
    return f"received {', '.join(inputs)}; expected one name, since the model of a spec takes images alone"


def _thresholds_fit(negative: Any, positive: Any) -> str | None:
    if negative <= positive:
        return None
    return f"received {negative}, above positive_iou: {positive}; expected at most that"


def _options_fit(options: Any, architecture: Any) -> str | None:
    stated = _plain(options)
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


def _labels_named(labels: Any, images: Any) -> str | None:
    if images is not None and labels is None:
        return f"is null, expected the name of the labels of x_test {images!r}"
    if images is None and labels not in (None, "y_test"):
        return f"received {labels!r}, which is not read since x_test is null; expected null"
    return None


def _held_out(fraction: Any, images: Any, kind: Any) -> str | None:
    if kind != "npz" or (fraction is None) != (images is None):
        return None
    if fraction is None:
        return "is missing; expected a number between 0 and 1, since x_test is null and no images are held out"
    return f"received {fraction} beside x_test {images!r}; expected one of them; x_test: null holds the fraction out"


def _only_for(choices: tuple[str, ...], default: Any) -> Callable[[Any, Any], str | None]:
    """An option that only some choices honor must keep its default with the others."""

    def find(value: Any, choice: Any) -> str | None:
        if value == default or choice in choices:
            return None
        return f"received {value}, which {choice} does not use; expected it with {' or '.join(choices)} only"

    return find


def _formats_fit(formats: Any, target: Any) -> str | None:
    written = load_target(target).exporters
    wrong = [name for name in formats or () if name not in written]
    if not wrong:
        return clash(formats or ())
    nearest = names.near(wrong[0], written)
    hint = f"; did you mean {nearest}?" if nearest else ""
    return f"received {', '.join(wrong)}, expected formats of the target {target}: {', '.join(written)}{hint}"


def _formats(stated: Any, target: Any) -> tuple[str, ...]:
    """The formats of the export: the stated ones, or the target's usual one."""
    return tuple(stated) if stated else load_target(target).exporters[:1]


def _written_by(role: str, stated: Any, target: Any) -> bool:
    """Whether the export writes the file of that role; a format that does not exist is another check's matter."""
    chosen = (FORMATS[name] for name in _formats(stated, target) if name in FORMATS)
    return any(role in form.files for form in chosen)


def _cache_readable(version: Any, formats: Any, target: Any) -> str | None:
    if not _written_by("cache", formats, target) or int(str(version).split(".")[0]) <= 10:
        return None
    return (
        f"received {version}: TensorRT 11 and later read no calibration cache, only model.qdq.onnx; expected up to 10"
    )


def _int8_weights_readable(int8: Any, version: Any, formats: Any, target: Any) -> str | None:
    if not int8 or "tensorrt" not in _formats(formats, target) or int(str(version).split(".")[0]) >= 10:
        return None
    return f"received true, which TensorRT {version} cannot read; expected false, or tensorrt_version from 10.0 on"


def _c_array_fits(c_array: Any, formats: Any, target: Any) -> str | None:
    if not c_array or _written_by("c_source", formats, target):
        return None
    return f"received true, but of {', '.join(_formats(formats, target))} none is written as a C array, as tflite is"


def _aimet_fits(version: Any, formats: Any, target: Any) -> str | None:
    if version == "1.0.0" or _written_by("aimet", formats, target):
        return None
    return f"received {version}, but the formats {', '.join(_formats(formats, target))} have no AIMET encodings"


def _activation_fits(activation: Any, target: Any) -> str | None:
    offered = load_target(target).activation_choices
    if activation is None or activation in offered:
        return None
    return (
        f"received {activation}, expected null or one that the target {target} offers: {', '.join(offered) or 'none'}"
    )


def _equalize_first(tune: Any) -> str | None:
    if "equalize" not in tune or tune[0] == "equalize":
        return None
    return f"received equalize behind {tune[0]}; expected it first, since it works on the float model"


def _for_qat(value: Any, enable_qat: Any) -> str | None:
    if value is None or enable_qat:
        return None
    return "is for quantization-aware training, but enable_qat is false; expected null, or enable_qat: true"


def _for_epochs(value: Any, epochs: Any) -> str | None:
    if value is None or epochs:
        return None
    return "is for quantization-aware epochs, but num_epochs is 0; expected null, or num_epochs of at least 1"


def _within_training(value: Any, epochs: Any) -> str | None:
    if value is None or value < epochs:
        return None
    return f"received {value} with num_epochs: {epochs}, so it would never come; expected less, or null"


def _warmup_ends(warmup: Any, float_epochs: Any, epochs: Any, enable_qat: Any) -> str | None:
    for key, given in (("float_epochs", float_epochs), ("num_epochs", epochs if enable_qat else 0)):
        if given and warmup >= given:
            return f"received {warmup} with {key}: {given}, so the rate would only rise; expected less"
    return None


def _precision_set(precision: Any, checkpoint: Any) -> str | None:
    if precision is None or checkpoint is None or checkpoint.endswith(".weights.h5"):
        return None
    return (
        f"received {precision}, but the layers of {checkpoint} have a precision of their own; expected null. To change "
        "it, make the model by architecture or python, with the weights from a .weights.h5 file"
    )


def _something_to_calm(section: Any) -> str | None:
    if section is None or any(_plain(section).get(key) is not None for key in ("dampening", "freeze_threshold")):
        return None
    return "asks for nothing; expected dampening, freeze_threshold or both"


def _frozen_or_averaged(threshold: Any, ema: Any) -> str | None:
    if threshold is None or ema is None:
        return None
    return f"received {threshold} beside optimizer.ema: {ema}, which would average frozen weights with what they were"


def _something_to_learn(weight: Any, features: Any) -> str | None:
    if weight or features:
        return None
    return "received 0 without features, so nothing would be learnt; expected above 0, or features"


def _empty_rules(values: Mapping[str, Any], faulty: set[Path]) -> Iterator[Problem]:
    base: Path = ("quantization_config", "rules")
    rules = keys.value_at(base, values)
    for index, rule in enumerate(rules if isinstance(rules, list) else ()):
        path = (*base, index)
        if any(_related(path, wrong) for wrong in faulty):
            continue
        asked = [field.name for field in fields(Rule) if field.name != "match"]
        if all(rule.get(key) is None for key in asked):
            expected = f"one of {', '.join(asked)}"
            yield Problem(path, f"received a rule for {rule['match']!r} that asks for nothing; expected {expected}")


def _plain(section: Any) -> dict[str, Any]:
    return section if isinstance(section, dict) else section.model_dump()


_MODEL, _DATA, _DETECTION, _TRAIN, _QUANT, _EXPORT = (
    "model_config",
    "dataset_config",
    "detection_config",
    "training_config",
    "quantization_config",
    "export_config",
)
_BOX_DATA = f"data of kind {', '.join(names.BOX_KINDS)}, or python with targets: boxes"
_ARCHITECTURE, _KIND = f"{_MODEL}.architecture", f"{_DATA}.kind"
_RANGES, _VERSION = f"{_QUANT}.ranges", f"{_EXPORT}.tensorrt_version"
_FORMATS, _TARGET = f"{_EXPORT}.formats", f"{_QUANT}.target"


def _check(key: str, find: Callable[..., str | None], *others: str) -> Check:
    return Check(key, (key, *others), find)


CHECKS = (
    Check(_MODEL, (_ARCHITECTURE, f"{_MODEL}.checkpoint", f"{_MODEL}.python"), _one_source),
    _check(f"{_MODEL}.num_classes", _classes_stated, _ARCHITECTURE, f"{_DATA}.targets"),
    _check(f"{_MODEL}.num_classes", _classes_enough, _KIND, f"{_DATA}.targets"),
    _check(f"{_MODEL}.num_classes", _classes_fit, _KIND),
    _check(f"{_MODEL}.weights", _weights_fit, _ARCHITECTURE, f"{_MODEL}.checkpoint"),
    _check(f"{_MODEL}.weights", _published_weights, f"{_MODEL}.options.backbone"),
    _check(f"{_MODEL}.options", _options_fit, _ARCHITECTURE),
    _check(_ARCHITECTURE, _data_fit, _KIND, f"{_DATA}.targets"),
    _check(_DETECTION, _for_boxes, _KIND, f"{_DATA}.targets"),
    _check(f"{_DETECTION}.negative_iou", _thresholds_fit, f"{_DETECTION}.positive_iou"),
    _check(f"{_DETECTION}.huber_delta", _only_for(("huber",), 0.1), f"{_DETECTION}.box_loss"),
    _check(f"{_EXPORT}.detections", _detections_fit, _KIND, f"{_DATA}.targets"),
    _check(f"{_EXPORT}.detections", _overlap_allowed, f"{_DETECTION}.iou_threshold"),
    _check(f"{_EXPORT}.input_names", _inputs_named),
    _check(f"{_EXPORT}.output_names", _outputs_named, _KIND, f"{_DATA}.targets"),
    _check(f"{_EXPORT}.score_threshold", _only_for(("nms",), 0.05), f"{_EXPORT}.detections"),
    _check(f"{_MODEL}.input_shape", _shape_fits, f"{_DATA}.image_size", _KIND),
    _check(f"{_MODEL}.input_shape", _channels_fit, _KIND),
    _check(f"{_DATA}.y_test", _labels_named, f"{_DATA}.x_test"),
    _check(f"{_DATA}.validation_fraction", _held_out, f"{_DATA}.x_test", _KIND),
    _check(
        f"{_TRAIN}.float_epochs",
        _something_to_train,
        f"{_TRAIN}.enable_qat",
        f"{_MODEL}.weights",
        _ARCHITECTURE,
        f"{_MODEL}.checkpoint",
    ),
    _check(f"{_TRAIN}.optimizer.momentum", _only_for(("sgd",), 0.9), f"{_TRAIN}.optimizer.name"),
    _check(
        f"{_TRAIN}.optimizer.warmup_epochs",
        _warmup_ends,
        f"{_TRAIN}.float_epochs",
        f"{_TRAIN}.num_epochs",
        f"{_TRAIN}.enable_qat",
    ),
    _check(f"{_TRAIN}.freeze_ranges_epoch", _for_qat, f"{_TRAIN}.enable_qat"),
    _check(f"{_TRAIN}.freeze_ranges_epoch", _within_training, f"{_TRAIN}.num_epochs"),
    _check(f"{_TRAIN}.freeze_ranges_epoch", _only_for(("moving_average", "learned"), None), _RANGES),
    _check(f"{_TRAIN}.freeze_batch_norm_epoch", _for_qat, f"{_TRAIN}.enable_qat"),
    _check(f"{_TRAIN}.freeze_batch_norm_epoch", _within_training, f"{_TRAIN}.num_epochs"),
    _check(f"{_TRAIN}.precision", _precision_set, f"{_MODEL}.checkpoint"),
    _check(f"{_TRAIN}.oscillation", _for_qat, f"{_TRAIN}.enable_qat"),
    _check(f"{_TRAIN}.oscillation", _for_epochs, f"{_TRAIN}.num_epochs"),
    _check(f"{_TRAIN}.oscillation", _something_to_calm),
    _check(f"{_TRAIN}.oscillation.freeze_threshold", _frozen_or_averaged, f"{_TRAIN}.optimizer.ema"),
    _check(f"{_TRAIN}.distillation", _for_qat, f"{_TRAIN}.enable_qat"),
    _check(f"{_TRAIN}.distillation", _for_epochs, f"{_TRAIN}.num_epochs"),
    _check(f"{_TRAIN}.distillation.weight", _something_to_learn, f"{_TRAIN}.distillation.features"),
    _check(f"{_QUANT}.calibration.percentile", _only_for(("percentile",), 99.99), f"{_QUANT}.calibration.method"),
    _check(f"{_QUANT}.decay", _only_for(("moving_average",), 0.99), _RANGES),
    _check(f"{_QUANT}.observe_fraction", _only_for(("moving_average",), 1.0), _RANGES),
    _check(f"{_QUANT}.ranges_rate_multiplier", _only_for(("learned",), 1.0), _RANGES),
    _check(f"{_QUANT}.freeze_after", _only_for(("moving_average", "learned"), None), _RANGES),
    _check(_FORMATS, _formats_fit, _TARGET),
    _check(_VERSION, _cache_readable, _FORMATS, _TARGET),
    _check(f"{_EXPORT}.int8_weights", _int8_weights_readable, _VERSION, _FORMATS, _TARGET),
    _check(f"{_EXPORT}.c_array", _c_array_fits, _FORMATS, _TARGET),
    _check(f"{_EXPORT}.aimet_version", _aimet_fits, _FORMATS, _TARGET),
    _check(f"{_QUANT}.activation", _activation_fits, _TARGET),
    _check(f"{_QUANT}.tune", _equalize_first),
)
