"""Export: checks of `export_config`, against target and data."""

from __future__ import annotations

from typing import Any

from tfqat.exporters.registry import FORMATS as FILE_FORMATS
from tfqat.exporters.registry import clash
from tfqat.spec import names
from tfqat.spec.checks.check import (
    DATA,
    DETECTION,
    EXPORT,
    FORMATS,
    KIND,
    TARGET,
    VERSION,
    have_boxes,
    on,
    only_for,
)
from tfqat.targets import load_target


def _detections_fit(detections: Any, kind: Any, targets: Any) -> str | None:
    if detections == "raw" or have_boxes(kind, targets):
        return None
    return f"received {detections} with {DATA}.kind {kind}, whose models find no boxes; expected raw"


def _overlap_allowed(detections: Any, overlap: Any) -> str | None:
    if detections == "raw" or overlap > 0:
        return None
    return f"received {detections} with {DETECTION}.iou_threshold: 0, which LiteRT refuses; expected it above 0"


def _outputs_named(outputs: Any, kind: Any, targets: Any) -> str | None:
    wanted = ("box regression", "class logits") if have_boxes(kind, targets) else ("class scores",)
    if outputs is None or len(outputs) == len(wanted):
        return None
    return f"received {', '.join(outputs)}; expected a name for each output, in this order: {', '.join(wanted)}"


def _inputs_named(inputs: Any) -> str | None:
    if inputs is None or len(inputs) == 1:
        return None
    return f"received {', '.join(inputs)}; expected one name, since the model of a spec takes images alone"


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
    chosen = (FILE_FORMATS[name] for name in _formats(stated, target) if name in FILE_FORMATS)
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


CHECKS = (
    on(f"{EXPORT}.detections", _detections_fit, KIND, f"{DATA}.targets"),
    on(f"{EXPORT}.detections", _overlap_allowed, f"{DETECTION}.iou_threshold"),
    on(f"{EXPORT}.input_names", _inputs_named),
    on(f"{EXPORT}.output_names", _outputs_named, KIND, f"{DATA}.targets"),
    on(f"{EXPORT}.score_threshold", only_for(("nms",), 0.05), f"{EXPORT}.detections"),
    on(FORMATS, _formats_fit, TARGET),
    on(VERSION, _cache_readable, FORMATS, TARGET),
    on(f"{EXPORT}.int8_weights", _int8_weights_readable, VERSION, FORMATS, TARGET),
    on(f"{EXPORT}.c_array", _c_array_fits, FORMATS, TARGET),
    on(f"{EXPORT}.aimet_version", _aimet_fits, FORMATS, TARGET),
)
