"""Checks: values that are right alone and wrong together; the key at fault is named."""

from __future__ import annotations

import pytest

from tfqat.spec import SpecError, load_spec

BASES = {
    "digits": """
results_dir: r
dataset_config: {kind: digits}
model_config: {architecture: resnet8, num_classes: 10}
training_config: {float_epochs: 1}
""",
    "folder": """
results_dir: r
dataset_config: {kind: image_folder, train_dir: a, val_dir: b}
model_config: {architecture: MobileNetV2, num_classes: 3, weights: imagenet}
""",
    "npz": """
results_dir: r
dataset_config: {kind: npz, path: a.npz}
model_config: {checkpoint: a.keras}
""",
    "python": """
results_dir: r
dataset_config: {kind: python, function: "my.data:load"}
model_config: {python: "my.model:build", num_classes: 5}
""",
    "voc": """
results_dir: r
dataset_config: {kind: voc, path: a}
model_config: {architecture: efficientdet_d0, num_classes: 3, weights: imagenet}
""",
    "boxes": """
results_dir: r
dataset_config: {kind: python, function: "my.data:load", targets: boxes}
model_config: {architecture: efficientdet_d0, num_classes: 3, weights: imagenet}
""",
}

# Name: base, overrides, key at fault, words of the message.
WRONG = {
    "distillation_without_qat": (
        "digits",
        ["training_config.enable_qat=false", "training_config.distillation={}"],
        "training_config.distillation",
        ["enable_qat is false"],
    ),
    "distillation_without_epochs": (
        "digits",
        ["training_config.num_epochs=0", "training_config.distillation={}"],
        "training_config.distillation",
        ["num_epochs is 0"],
    ),
    "oscillation_without_epochs": (
        "digits",
        ["training_config.num_epochs=0", "training_config.oscillation={dampening: 0.1}"],
        "training_config.oscillation",
        ["num_epochs is 0"],
    ),
    "distillation_of_nothing": (
        "digits",
        ["training_config.distillation={weight: 0}"],
        "training_config.distillation.weight",
        ["nothing would be learnt"],
    ),
    "freezing_after_the_end": (
        "digits",
        ["training_config.freeze_batch_norm_epoch=4"],
        "training_config.freeze_batch_norm_epoch",
        ["received 4 with num_epochs: 4"],
    ),
    "freezing_fixed_ranges": (
        "digits",
        ["training_config.freeze_ranges_epoch=1", "quantization_config.ranges=fixed"],
        "training_config.freeze_ranges_epoch",
        ["fixed does not use"],
    ),
    "warm_up_without_end": (
        "digits",
        ["training_config.optimizer.warmup_epochs=1"],
        "training_config.optimizer.warmup_epochs",
        ["float_epochs: 1", "would only rise"],
    ),
    "precision_of_a_checkpoint": (
        "npz",
        ["training_config.precision=mixed_float16"],
        "training_config.precision",
        ["a.keras have a precision of their own"],
    ),
    "oscillation_of_nothing": (
        "digits",
        ["training_config.oscillation={}"],
        "training_config.oscillation",
        ["asks for nothing"],
    ),
    "frozen_and_averaged": (
        "digits",
        ["training_config.oscillation={freeze_threshold: 0.1}", "training_config.optimizer.ema=0.9"],
        "training_config.oscillation.freeze_threshold",
        ["average frozen weights"],
    ),
    "boxes_of_how_many_classes": (
        "python",
        ["dataset_config.targets=boxes", "model_config={python: 'my.model:build'}"],
        "model_config.num_classes",
        ["is missing", "the number of classes of dataset_config.function"],
    ),
    "no_model": ("npz", ["model_config={}"], "model_config", ["none of the three"]),
    "two_models": ("npz", ["model_config.python='a:b'"], "model_config", ["a.keras", "a:b", "exactly one"]),
    "weights_without_a_model": (
        "npz",
        ["model_config={checkpoint: a.weights.h5}"],
        "model_config",
        ["weights only", "architecture and python"],
    ),
    "weights_of_two_models": (
        "digits",
        ["model_config={checkpoint: a.weights.h5, python: 'a:b', architecture: resnet8, num_classes: 10}"],
        "model_config",
        ["weights only"],
    ),
    "weights_twice": (
        "digits",
        ["model_config.checkpoint=a.weights.h5", "model_config.weights=b.weights.h5"],
        "model_config.weights",
        ["b.weights.h5", "a.weights.h5", "one of the two"],
    ),
    "classes_missing": ("folder", ["model_config.num_classes=null"], "model_config.num_classes", ["MobileNetV2"]),
    "classes_of_digits": ("digits", ["model_config.num_classes=9"], "model_config.num_classes", ["9", "10"]),
    "one_class_of_digits": ("digits", ["model_config.num_classes=1"], "model_config.num_classes", ["at least 2"]),
    "one_class_of_a_function": ("python", ["model_config.num_classes=1"], "model_config.num_classes", ["at least 2"]),
    "untrained": ("digits", ["training_config.float_epochs=0"], "training_config.float_epochs", ["random weights"]),
    "untrained_by_default": ("digits", ["training_config={}"], "training_config.float_epochs", ["at least 1"]),
    "nothing_to_do": ("npz", ["training_config.enable_qat=false"], "training_config.float_epochs", ["nothing"]),
    "weights_of_a_checkpoint": ("npz", ["model_config.weights=imagenet"], "model_config.weights", ["architecture"]),
    "weights_of_the_zoo": ("digits", ["model_config.weights=imagenet"], "model_config.weights", ["resnet8"]),
    "weights_of_a_word": (
        "folder",
        ["model_config.weights=noisy"],
        "model_config.weights",
        ["imagenet", ".weights.h5"],
    ),
    "option_of_the_zoo": (
        "digits",
        ["model_config.options.alpha=0.5"],
        "model_config.options",
        ["alpha", "no options"],
    ),
    "option_of_another": (
        "folder",
        ["model_config.options.minimalistic=true"],
        "model_config.options",
        ["minimalistic", "MobileNetV2 takes alpha"],
    ),
    "option_of_a_checkpoint": ("npz", ["model_config.options.alpha=0.5"], "model_config.options", ["architecture"]),
    "sides": ("digits", ["model_config.input_shape=[32,28,1]"], "model_config.input_shape", ["32 x 32"]),
    "channels": (
        "digits",
        ["model_config.input_shape=[32,32,3]"],
        "model_config.input_shape",
        ["3 channels", "have 1"],
    ),
    "nothing_held_out": ("npz", ["dataset_config.x_test=null"], "dataset_config.validation_fraction", ["missing"]),
    "held_out_twice": (
        "npz",
        ["dataset_config.validation_fraction=0.1"],
        "dataset_config.validation_fraction",
        ["0.1"],
    ),
    "no_labels": ("npz", ["dataset_config.y_test=null"], "dataset_config.y_test", ["x_test"]),
    "momentum_of_adam": (
        "digits",
        ["training_config.optimizer={name: adam, momentum: 0.5}"],
        "training_config.optimizer.momentum",
        ["0.5", "adam", "sgd"],
    ),
    "percentile_of_mse": (
        "digits",
        ["quantization_config.calibration.percentile=99"],
        "quantization_config.calibration.percentile",
        ["99", "mse", "percentile only"],
    ),
    "decay_of_learned": (
        "digits",
        ["quantization_config={ranges: learned, decay: 0.9}"],
        "quantization_config.decay",
        ["learned"],
    ),
    "rate_of_moving_average": (
        "digits",
        ["quantization_config.ranges_rate_multiplier=2.0"],
        "quantization_config.ranges_rate_multiplier",
        ["2.0", "moving_average", "learned only"],
    ),
    "observe_of_fixed": (
        "digits",
        ["quantization_config={ranges: fixed, observe_fraction: 0.5}"],
        "quantization_config.observe_fraction",
        ["fixed"],
    ),
    "freeze_of_fixed": (
        "digits",
        ["quantization_config={ranges: fixed, freeze_after: 5}"],
        "quantization_config.freeze_after",
        ["5"],
    ),
    "equalize_late": (
        "digits",
        ["quantization_config.tune=[bias_correction, equalize]"],
        "quantization_config.tune",
        ["behind bias_correction", "float model"],
    ),
    "tune_unknown": (
        "digits",
        ["quantization_config.tune=[bias_corection]"],
        "quantization_config.tune[0]",
        ["bias_corection", "equalize, bias_correction", "did you mean bias_correction?"],
    ),
    "tune_twice": (
        "digits",
        ["quantization_config.tune=[batch_norm, batch_norm]"],
        "quantization_config.tune",
        ["each entry once"],
    ),
    "format_of_another": ("digits", ["export_config.formats=[tensorrt, tflite]"], "export_config.formats", ["tflite"]),
    "int8_too_early": ("digits", ["export_config.int8_weights=true"], "export_config.int8_weights", ["8.6.1", "10.0"]),
    "boxes_for_a_classifier": (
        "voc",
        ["model_config.architecture=MobileNetV2"],
        "model_config.architecture",
        ["MobileNetV2, which finds no boxes", "efficientdet_d0 to efficientdet_d7"],
    ),
    "boxes_of_a_function_for_a_classifier": (
        "boxes",
        ["model_config.architecture=MobileNetV2"],
        "model_config.architecture",
        ["MobileNetV2, which finds no boxes"],
    ),
    "labels_for_a_detector": (
        "folder",
        ["model_config.architecture=efficientdet_d1"],
        "model_config.architecture",
        ["efficientdet_d1, which learns boxes", "kind image_folder", "voc, coco, tfrecord"],
    ),
    "labels_of_a_function_for_a_detector": (
        "boxes",
        ["dataset_config.targets=labels"],
        "model_config.architecture",
        ["efficientdet_d0, which learns boxes", "python with targets: boxes"],
    ),
    "option_of_a_detector": (
        "voc",
        ["model_config.options.dropout=0.5"],
        "model_config.options",
        ["dropout", "efficientdet_d0 takes activation, backbone, width, depth, head_depth, weighted"],
    ),
    "detector_options_of_a_classifier": (
        "folder",
        ["model_config.options={activation: relu6, width: 8}"],
        "model_config.options",
        ["received activation, width", "MobileNetV2 takes alpha"],
    ),
    "weights_of_an_own_backbone": (
        "voc",
        ["model_config.options.backbone='a:b'"],
        "model_config.weights",
        ["received imagenet", "a:b brings its own"],
    ),
    "classes_of_a_detector": (
        "voc",
        ["model_config.num_classes=null"],
        "model_config.num_classes",
        ["the number of classes of efficientdet_d0"],
    ),
    "gray_detector": ("voc", ["model_config.input_shape=[512,512,1]"], "model_config.input_shape", ["voc images"]),
    "sides_of_a_detector": (
        "voc",
        ["model_config.input_shape=[128,256,3]", "dataset_config.image_size=[256,128]"],
        "model_config.input_shape",
        ["voc images are 256 x 128"],
    ),
    "negative_above_positive": (
        "voc",
        ["detection_config={positive_iou: 0.4, negative_iou: 0.45}"],
        "detection_config.negative_iou",
        ["received 0.45", "positive_iou: 0.4"],
    ),
    "negative_above_positive_by_default": (
        "voc",
        ["detection_config.positive_iou=0.4"],
        "detection_config.negative_iou",
        ["received 0.5, above positive_iou: 0.4"],
    ),
    "delta_of_giou": (
        "voc",
        ["detection_config={box_loss: giou, huber_delta: 0.2}"],
        "detection_config.huber_delta",
        ["received 0.2", "giou does not use"],
    ),
    "detection_of_classes": (
        "folder",
        ["detection_config={focal_gamma: 2.0, aspect_ratios: [1.0, 2.0, 0.4]}"],
        "detection_config",
        ["received aspect_ratios, focal_gamma", "image_folder data have no boxes", "voc, coco, tfrecord"],
    ),
    "nms_of_classes": (
        "folder",
        ["export_config.detections=nms"],
        "export_config.detections",
        ["received nms", "expected raw"],
    ),
    "nms_of_no_overlap": (
        "voc",
        ["export_config.detections=nms", "detection_config.iou_threshold=0"],
        "export_config.detections",
        ["iou_threshold: 0", "above 0"],
    ),
    "one_output_of_a_detector": (
        "voc",
        ["export_config.output_names=[boxes]"],
        "export_config.output_names",
        ["received boxes;", "in this order: box regression, class logits"],
    ),
    "two_outputs_of_a_classifier": (
        "digits",
        ["export_config.output_names=[a, b]"],
        "export_config.output_names",
        ["received a, b;", "in this order: class scores"],
    ),
    "two_inputs": (
        "digits",
        ["export_config.input_names=[a, b]"],
        "export_config.input_names",
        ["received a, b;", "expected one name"],
    ),
    "threshold_of_raw_outputs": (
        "voc",
        ["export_config.score_threshold=0.2"],
        "export_config.score_threshold",
        ["received 0.2", "nms only"],
    ),
    "empty_rule": ("digits", ["quantization_config.rules=[{match: a}]"], "quantization_config.rules[0]", ["quantize"]),
}

RIGHT = {
    "folder": ("folder", []),
    "npz": ("npz", []),
    "python": ("python", []),
    "only_calibrate": ("npz", ["training_config.num_epochs=0"]),
    "only_float": ("digits", ["training_config.enable_qat=false"]),
    "weights_alone": ("digits", ["model_config.checkpoint=a.weights.h5", "training_config={}"]),
    "weights_of_a_function": ("npz", ["model_config={checkpoint: a.weights.h5, python: 'a:b'}"]),
    "saved_model": ("npz", ["model_config.checkpoint=models/v1.2"]),
    "other_model": ("digits", ["model_config={checkpoint: a.h5}", "training_config={}"]),
    "held_out": ("npz", ["dataset_config.x_test=null", "dataset_config.validation_fraction=0.2"]),
    "option": ("folder", ["model_config.options.alpha=0.35"]),
    "weights_file": ("digits", ["model_config.weights=a.weights.h5", "training_config={}"]),
    "momentum": ("digits", ["training_config.optimizer.momentum=0.5"]),
    "adam_with_the_default": ("digits", ["training_config.optimizer={name: adam, momentum: 0.9}"]),
    "percentile": ("digits", ["quantization_config.calibration={method: percentile, percentile: 99.9}"]),
    "int8": ("digits", ["export_config={int8_weights: true, tensorrt_version: '10.3.0'}"]),
    "sides": ("digits", ["model_config.input_shape=[32,32,1]"]),
    "voc": ("voc", []),
    "boxes": ("boxes", []),
    "one_class_of_boxes": ("voc", ["model_config.num_classes=1"]),
    "one_class_of_boxes_of_a_function": ("boxes", ["model_config.num_classes=1"]),
    "names_of_a_detector": ("voc", ["export_config={input_names: [image], output_names: [boxes, classes]}"]),
    "boxes_for_a_function": ("voc", ["model_config={python: 'a:b'}"]),
    "detector": (
        "voc",
        [
            "detection_config={positive_iou: 0.6, negative_iou: 0.4, huber_delta: 0.2, aspect_ratios: [1.0, 1.4, 0.7]}",
            "model_config.weights=null",
            "training_config.float_epochs=1",
            "model_config.options={activation: relu6, backbone: 'a:b', width: 8, depth: 1, head_depth: 1, "
            "weighted: false}",
            "export_config={detections: nms, score_threshold: 0.2}",
            "dataset_config.image_size=[128,256]",
            "model_config.input_shape=[128,256,3]",
        ],
    ),
    "defaults_of_detection": ("folder", ["detection_config={aspect_ratios: [1.0, 2.0, 0.5], focal_gamma: 1.5}"]),
    "tune": ("digits", ["quantization_config.tune=[equalize, batch_norm, bias_correction]"]),
}


@pytest.fixture
def load(tmp_path):
    def load(base: str, overrides: list[str]):
        path = tmp_path / "spec.yaml"
        path.write_text(BASES[base])
        return load_spec(path, overrides)

    return load


@pytest.mark.parametrize(("base", "overrides", "key", "words"), WRONG.values(), ids=WRONG)
def test_wrong_together(load, base, overrides, key, words):
    with pytest.raises(SpecError) as caught:
        load(base, overrides)
    (problem,) = caught.value.problems
    assert problem.key == key
    for word in words:
        assert word in problem.message


@pytest.mark.parametrize(("base", "overrides"), RIGHT.values(), ids=RIGHT)
def test_right_together(load, base, overrides):
    assert load(base, overrides).results_dir == "r"


def test_a_check_waits_for_its_own_keys_only(load):
    """num_classes is judged although its neighbor is unknown; float_epochs is not, since enable_qat is unreadable."""
    with pytest.raises(SpecError) as caught:
        load("digits", ["model_config.num_classes=9", "model_config.typo=1", "training_config={enable_qat: 3}"])
    keys = [problem.key for problem in caught.value.problems]
    assert sorted(keys) == ["model_config.num_classes", "model_config.typo", "training_config.enable_qat"]
