"""Spec: everything one run needs to know, as frozen values with closed keys; its YAML form is what users write.

Rules that look at one value are here, rules that compare several are in ``checks``.
"""

from __future__ import annotations

import re
from textwrap import indent
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from tfqat.errors import TfqatError
from tfqat.spec import names
from tfqat.spec.datasets import Boxes, Dataset
from tfqat.spec.types import (
    Count,
    Factor,
    Function,
    ModelPath,
    Positive,
    Section,
    Share,
    Side,
    TensorNames,
    Text,
    distinct,
    wrong,
)
from tfqat.targets import CONFIG_SUFFIX, load_target, target_names


def _one_of(word: str, choices: tuple[str, ...], expected: str) -> str:
    if word not in choices:
        raise wrong(expected, names.near(word, choices))
    return word


def _architecture(word: str) -> str:
    zoo = f"{', '.join(names.CLASSIFIERS)}, {names.DETECTORS[0]} to {names.DETECTORS[-1]}"
    return _one_of(word, (*names.ZOO, *names.APPLICATIONS), f"{zoo} or the name of a model of keras.applications")


def _target(word: str) -> str:
    if not word.endswith(CONFIG_SUFFIX):
        return _one_of(word, target_names(), f"one of: {', '.join(target_names())}, or an AIMET-style config, x.json")
    try:
        load_target(word)
    except TfqatError as error:
        raise wrong("an AIMET-style config\n" + indent(str(error), "    ")) from error
    return word


def _version(text: str) -> str:
    """``major.minor.patch``; a missing patch is 0, a fourth number (NVIDIA's build number) is left out."""
    if not re.fullmatch(r"[1-9]\d?\.\d{1,2}(\.\d{1,2}(\.\d{1,4})?)?", text, re.ASCII):
        raise wrong('a TensorRT version in quotes, such as "8.6.1"')
    major, minor, patch = (int(part) for part in f"{text}.0".split(".")[:3])
    # The header of a cache has one digit for the minor version below 10: 8.10 and 9.0 would be the same number.
    if major < 10 and minor > 9:
        raise wrong('a TensorRT version in quotes, such as "8.6.1", with a minor version up to 9')
    return f"{major}.{minor}.{patch}"


class ModelOptions(Section):
    """Arguments of a keras.applications function or of an EfficientDet; which model takes which is in ``names``."""

    alpha: Annotated[float, Field(gt=0)] | None = None
    depth_multiplier: Positive | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    dropout_rate: Annotated[float, Field(ge=0, lt=1)] | None = None
    include_preprocessing: bool | None = None
    minimalistic: bool | None = None
    activation: Literal["silu", "relu6"] | None = None  # EfficientDet's, and in place of its backbone's SiLU
    backbone: Text | None = None  # narrow_resnet, a name of keras.applications, or a "package.module:function"
    width: Positive | None = None  # channels of the BiFPN and the heads
    depth: Positive | None = None  # BiFPNs
    head_depth: Positive | None = None  # convolutions of a head before its last
    batch_norm_momentum: Annotated[float, Field(gt=0, lt=1)] | None = None  # of all; less than 0.99 for few steps
    weighted: bool | None = None  # fast normalized fusion, else a sum

    def given(self) -> dict[str, bool | int | float]:
        """The options that the spec states, as keyword arguments."""
        return self.model_dump(exclude_none=True)


class Model(Section):
    """The float model: exactly one of architecture, checkpoint and python; weights alone need one of the others."""

    architecture: Annotated[Text, AfterValidator(_architecture)] | None = None
    checkpoint: ModelPath | None = None  # a TFMOT .h5, too; a .weights.h5 with architecture or python beside it
    python: Function | None = None
    num_classes: Positive | None = None  # of a classifier at least 2
    input_shape: Annotated[tuple[Side, Side, Positive], Field(strict=False)] | None = None  # [height, width, channels]
    weights: Text | None = None  # imagenet, or a .weights.h5 file; null starts from random weights
    options: ModelOptions = ModelOptions()


class Optimizer(Section):
    """What moves the weights, in both phases."""

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    learning_rate: Annotated[float, Field(gt=0)] = 0.05
    schedule: Literal["constant", "cosine"] = "cosine"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9  # sgd only
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0  # the rate rises from 0 over that many, in both phases
    clip_norm: Annotated[float, Field(gt=0)] | None = None  # longer gradients, over all weights, are scaled to it
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None  # momentum; the averaged weights are evaluated and kept


class Distillation(Section):
    """What quantization-aware training learns from the float model, besides the labels."""

    weight: Annotated[float, Field(ge=0)] = 1.0  # of the outputs' term, beside 1 for the labels' loss
    temperature: Annotated[float, Field(gt=0)] = 3.0
    features: Annotated[tuple[Text, ...], Field(strict=False), AfterValidator(distinct)] = ()  # names of ops
    feature_weight: Annotated[float, Field(gt=0)] = 1.0


class Oscillation(Section):
    """What is done to weights that jump to and fro between two integers."""

    dampening: Annotated[float, Field(gt=0)] | None = None  # weight that its loss has in the end
    freeze_threshold: Annotated[float, Field(gt=0, lt=1)] | None = None  # turns a step, averaged
    momentum: Annotated[float, Field(gt=0, lt=1)] = 0.01  # of that average


class Training(Section):
    """Float epochs, then (``enable_qat``) quantization-aware epochs."""

    enable_qat: bool = True
    float_epochs: Count = 0
    num_epochs: Count = 4  # of quantization-aware training; 0 only calibrates
    optimizer: Optimizer = Optimizer()
    l2: Annotated[float, Field(ge=0)] = 0.0  # times half the sum of all kernels' squares, added to the loss
    freeze: Annotated[tuple[Text, ...], Field(strict=False), AfterValidator(distinct)] = ()  # layers, * and ? allowed
    freeze_batch_norm: bool = False  # statistics, scale and shift of every BatchNorm stay, in both phases
    qat_learning_rate: Annotated[float, Field(gt=0)] | None = None  # null: a tenth of learning_rate
    freeze_ranges_epoch: Count | None = None  # ranges and learned scales stay after that many quantized epochs
    freeze_batch_norm_epoch: Count | None = None  # likewise BatchNorm's moving statistics, which training then uses
    keep: Literal["last", "best"] = "last"  # best: the epoch of the highest validation accuracy or AP50, in both phases
    recoveries: Count = 0  # how often a phase whose loss is not finite goes back an epoch, with half the rate
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] | None = None  # null: as the model is made
    distillation: Distillation | None = None
    oscillation: Oscillation | None = None
    tensorboard: bool = False


class Detection(Section):
    """What an object detector learns, and which boxes count as found."""

    anchor_scale: Annotated[float, Field(gt=0)] = 4.0  # side of the smallest square anchor, in cells
    aspect_ratios: Annotated[tuple[Factor, Factor, Factor], Field(strict=False), AfterValidator(distinct)] = (
        1.0,
        2.0,
        0.5,
    )  # width to height
    positive_iou: Share = 0.5  # an anchor learns the object that it overlaps that much,
    negative_iou: Share = 0.5  # and background where it overlaps none that much
    focal_alpha: Annotated[float, Field(gt=0, lt=1)] = 0.25
    focal_gamma: Annotated[float, Field(ge=0)] = 1.5
    box_loss: Literal["huber", "iou", "giou", "diou", "ciou"] = "huber"
    huber_delta: Annotated[float, Field(gt=0)] = 0.1
    box_weight: Annotated[float, Field(gt=0)] | None = None  # beside 1 for the classes; null: 50 with huber, else 1
    score_threshold: Share = 0.01  # boxes below it are not counted
    iou_threshold: Share = 0.5  # a box goes that overlaps a better one of its class more
    max_detections: Annotated[int, Field(ge=1, le=1000)] = 100  # of one image


class Calibration(Section):
    """How first ranges are found from data."""

    method: Literal["minmax", "percentile", "mse", "entropy"] = "mse"
    batches: Positive = 8
    percentile: Annotated[float, Field(gt=0, le=100)] = 99.99


Bits = Annotated[int, Field(ge=2, le=8)]
# Activations without an upper bound, which ReLU6 may take the place of.
Unbounded = Literal[
    "relu", "leaky_relu", "prelu", "elu", "selu", "celu", "silu", "hard_silu", "gelu", "softplus", "mish"
]


class Rule(Section):
    """What is done with the ops whose name matches; ``null`` leaves a question to the target."""

    match: Text  # a name, or a pattern with * and ?
    quantize: bool | Literal["weights"] | None = None  # weights: of few bits, beside float activations
    relu6: bool | None = None
    weight_bits: Bits | None = None
    activation_bits: Bits | None = None


class Quantization(Section):
    """Which accelerator, and how ranges are found."""

    target: Annotated[str, AfterValidator(_target)] = "tensorrt"
    calibration: Calibration = Calibration()
    ranges: Literal["moving_average", "learned", "fixed"] = "moving_average"
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.99
    observe_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    freeze_after: Count | None = None
    ranges_rate_multiplier: Annotated[float, Field(gt=0)] = 1.0  # of learned ranges, on the optimizer's learning rate
    relu6: Annotated[tuple[Unbounded, ...], Field(strict=False), AfterValidator(distinct)] = (
        "relu",
        "leaky_relu",
        "prelu",
        "elu",
    )  # what becomes ReLU6, but for model outputs
    rules: Annotated[tuple[Rule, ...], Field(strict=False)] = ()
    tune: Annotated[
        tuple[Literal["equalize", "bias_correction", "batch_norm", "adaround"], ...],
        Field(strict=False),
        AfterValidator(distinct),
    ] = ()  # in this order, before training
    strict: bool = False
    activation: Literal["int8", "uint8"] | None = None  # null: the target's own


class Export(Section):
    """Which files are written, and for which reader."""

    formats: Annotated[tuple[Text, ...], Field(strict=False, min_length=1), AfterValidator(distinct)] | None = None
    tensorrt_version: Annotated[str, AfterValidator(_version)] = "8.6.1"
    opset: Annotated[int, Field(ge=13, le=21)] = 17
    int8_weights: bool | None = None  # null: as the target has it
    aimet_version: Literal["0.6.1", "1.0.0", "2.0.0"] = "1.0.0"
    detections: Literal["raw", "nms"] = "raw"  # nms: also files that decode boxes and suppress the overlapping ones
    score_threshold: Annotated[float, Field(ge=0, lt=1)] = 0.05  # boxes below it are not in these files' outputs
    c_array: bool = False  # the TFLite flatbuffer as C source and header, too
    input_names: TensorNames | None = None
    output_names: TensorNames | None = None


class Spec(Section):
    """One run, whole. The YAML keys of the sections end in ``_config``."""

    results_dir: Text
    random_seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 42
    dataset: Dataset = Field(alias="dataset_config")
    model: Model = Field(alias="model_config")
    detection: Detection = Field(default=Detection(), alias="detection_config")
    training: Training = Field(default=Training(), alias="training_config")
    quantization: Quantization = Field(default=Quantization(), alias="quantization_config")
    export: Export = Field(default=Export(), alias="export_config")

    @property
    def task(self) -> str:
        """What the model is for, which the data say."""
        boxes = isinstance(self.dataset, Boxes) or (self.dataset.kind == "python" and self.dataset.targets == "boxes")
        return "detection" if boxes else "classification"
