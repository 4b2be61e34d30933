"""Names: the models that a spec may name, known without importing Keras, and the search for a misspelt word."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# Kinds of data whose images have boxes.
BOX_KINDS = ("voc", "coco", "tfrecord")
DETECTORS = tuple(f"efficientdet_d{number}" for number in range(8))
CLASSIFIERS = ("resnet8", "vit")
ZOO = (*CLASSIFIERS, *DETECTORS)

# The model functions of keras.applications. A test compares this list and the options below with the installed Keras.
APPLICATIONS = (
    *("ConvNeXtTiny", "ConvNeXtSmall", "ConvNeXtBase", "ConvNeXtLarge", "ConvNeXtXLarge"),
    *("DenseNet121", "DenseNet169", "DenseNet201"),
    *(f"EfficientNetB{index}" for index in range(8)),
    *(f"EfficientNetV2{size}" for size in ("B0", "B1", "B2", "B3", "S", "M", "L")),
    *("InceptionResNetV2", "InceptionV3"),
    *("MobileNet", "MobileNetV2", "MobileNetV3Large", "MobileNetV3Small"),
    *("NASNetLarge", "NASNetMobile"),
    *("ResNet50", "ResNet101", "ResNet152", "ResNet50V2", "ResNet101V2", "ResNet152V2"),
    *("VGG16", "VGG19", "Xception"),
)

# Arguments of these functions beyond those that all of them share: name -> prefixes of the models that take it.
APPLICATION_OPTIONS = {
    "alpha": ("MobileNet",),
    "depth_multiplier": ("MobileNet",),
    "dropout": ("MobileNet",),
    "dropout_rate": ("MobileNetV3",),
    "include_preprocessing": ("ConvNeXt", "EfficientNetV2", "MobileNetV3"),
    "minimalistic": ("MobileNetV3",),
}
# Of the models with the prefix MobileNet, only the first version takes these.
_FIRST_VERSION_ONLY = {"depth_multiplier", "dropout"}


# Of a detector's backbone, where that is a model of keras.applications that takes them.
BACKBONE_OPTIONS = ("alpha", "depth_multiplier", "minimalistic")
DETECTOR_OPTIONS = (
    *("activation", "backbone", "width", "depth", "head_depth", "weighted", "batch_norm_momentum"),
    *BACKBONE_OPTIONS,
)


def options_of(architecture: str) -> tuple[str, ...]:
    """The ``model_config.options`` that this architecture takes; none for a name that is unknown."""
    if architecture in DETECTORS:
        return DETECTOR_OPTIONS
    if architecture not in APPLICATIONS:
        return ()
    return tuple(name for name in APPLICATION_OPTIONS if _takes(architecture, name))


def near(word: str, choices: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The choice that is most alike ``word`` (case, ``-`` and ``_`` aside), or None where none is alike."""
    by_form = {_form(choice): choice for choice in choices}
    found = difflib.get_close_matches(_form(word), by_form, n=1, cutoff=cutoff)
    return by_form[found[0]] if found else None


def _takes(architecture: str, option: str) -> bool:
    if option in _FIRST_VERSION_ONLY:
        return architecture == "MobileNet"
    return architecture.startswith(APPLICATION_OPTIONS[option])


def _form(word: str) -> str:
    return word.lower().replace("-", "_").strip()
