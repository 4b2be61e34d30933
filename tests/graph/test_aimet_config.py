"""AIMET-style configs: what they say becomes a Target and a Placement; what is wrong or cannot be honored is named."""

from __future__ import annotations

import copy
import json

import onnx
import pytest

import tfqat
from tfqat.core.scheme import Scheme
from tfqat.graph import kinds
from tfqat.graph.aimet_config import read_target, target_of
from tfqat.graph.aimet_config_ops import AIMET_OPS, MOVING, NONNEGATIVE, ONNX_NAMES, ONNX_OPS
from tfqat.graph.aimet_config_schema import AimetConfigError
from tfqat.graph.rules import rules_from
from tfqat.rewrite.plan import plan_for
from tfqat.spec import SpecError, load_spec
from tfqat.targets import load_target

YES, NO = "True", "False"
OFF = {"is_output_quantized": NO}
GROUPS = (["Conv", "Relu"], ["Conv", "Clip"], ["Add", "Relu"], ["Gemm", "Relu"])
INT8 = {"bitwidth": 8, "dtype": "int"}
INT16 = {"bitwidth": 16, "dtype": "int"}


def config(groups=GROUPS, params=None, ops=None, inputs=YES, outputs=None, activations=None, weights=None, **defaults):
    """A whole config: symmetric weights per channel, asymmetric activations, all outputs and inputs quantized."""
    return {
        "defaults": {
            "ops": {"is_output_quantized": YES} if activations is None else activations,
            "params": {"is_quantized": YES, "is_symmetric": YES} if weights is None else weights,
            "per_channel_quantization": YES,
            **defaults,
        },
        "params": {"bias": {"is_quantized": NO}} if params is None else params,
        "op_type": ops or {},
        "supergroups": [{"op_list": list(names)} for names in groups],
        "model_input": {} if inputs is None else {"is_input_quantized": inputs},
        "model_output": {} if outputs is None else {"is_output_quantized": outputs},
    }


UNTOUCHED = (
    "Cast BatchPermutation ChannelShuffle CropAndResize DepthToSpace Dropout Expand GatherND ReduceMax Reshape "
    "MaxPool Upsample SpaceToDepth Split Slice TopK Transpose BatchToSpace SpaceToBatch NonMaxSuppression "
    "NonZero Tile Squeeze Pad Mean ReduceMin Flatten Unsqueeze Compress Identity Shape If MaxRoiPool "
    "ScatterElements"
).split()
NORMALIZERS = {
    "BatchNormalization": {
        "per_channel_quantization": NO,
        "params": {"running_mean": {"is_quantized": NO}, "running_var": {"is_quantized": NO}},
    },
    "GroupNormalization": {"per_channel_quantization": NO, "params": {"bias": {"is_quantized": YES}}},
    "LayerNormalization": {"per_channel_quantization": NO, "params": {"weight": {"is_symmetric": NO}}},
    "LayerNorm": {"per_channel_quantization": NO},
    "RMSNormalization": {"per_channel_quantization": NO, "params": {"weight": {"is_symmetric": NO}}},
    "LSTM": {"per_channel_quantization": NO},
}
BOUNDED = {
    "Relu": {"encoding_constraints": {"min": 0.0}},
    "Sigmoid": {"encoding_constraints": {"min": 0.0, "max": 1.0}},
    "Softmax": {"encoding_constraints": {"min": 0.0, "max": 1.0}},
    "Tanh": {"encoding_constraints": {"min": -1.0, "max": 1.0}},
}
WIDE_GROUPS = (
    ["Conv", "BatchNormalization", "HardSwish"], ["Conv", "BatchNormalization", "PRelu"],
    ["Conv", "BatchNormalization", "LeakyRelu"], ["Conv", "Transpose", "Relu"], ["Conv", "HardSwish"],
    ["ConvTranspose", "Relu"], *GROUPS,
)  # fmt: skip
# One of each family that is published: AIMET's defaults, those of Keras and of language models, Qualcomm's devices.
PUBLISHED = {
    "default": config(
        groups=[["Conv", "Relu"], ["Add", "Relu"], ["Gemm", "Relu"]],
        weights={"is_quantized": YES}, per_channel_quantization=NO, strict_symmetric=NO, unsigned_symmetric=YES,
    ),
    "default_per_channel": config(
        groups=[*GROUPS, ["Conv", "BatchNormalization", "Relu"]],
        ops={"Squeeze": OFF, "Pad": OFF, "Mean": OFF}, strict_symmetric=NO, unsigned_symmetric=YES,
    ),
    "keras": config(
        groups=[["Conv", "BatchNormalization", "Relu"], ["Conv", "BatchNormalization"], *GROUPS],
        params={"bias": {"is_quantized": NO}, "prelu": {"is_symmetric": NO}, "C": {"is_quantized": NO},
                "scale": {"is_quantized": NO}, "mean": {"is_quantized": NO}, "var": {"is_quantized": NO}},
        ops={name: {"is_input_quantized": YES} for name in ("Conv", "ConvTranspose", "Gemm", "MatMul", "AveragePool")},
        activations={}, inputs=None, unsigned_symmetric=NO,
    ),
    "language_model": config(
        ops={"Squeeze": OFF, "Pad": OFF, "Mean": OFF, "Gemm": {"per_channel_quantization": YES}},
        per_channel_quantization=NO, strict_symmetric=NO,
    ),
    "device": config(
        groups=WIDE_GROUPS,
        ops={**dict.fromkeys(UNTOUCHED, OFF), **NORMALIZERS, **BOUNDED,
             "Gather": {**OFF, "per_channel_quantization": NO}, "Gemm": {"per_channel_quantization": NO},
             "MatMul": {"per_channel_quantization": NO}},
        strict_symmetric=NO, unsigned_symmetric=NO, hw_version="V73",
    ) | {"supergroup_pass_list": ["LayerNormalization", "RMSNormalization", "MatmulAdd"]},
    "kernels": config(
        supported_kernels=[{"activation": INT16, "param": INT8}, {"activation": INT8, "param": INT8}],
        ops={"Relu": {"supported_kernels": [{"activation": INT8}]},
             "LayerNormalization": {"supported_kernels": [{"activation": INT16, "param": INT16}]}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("document", PUBLISHED.values(), ids=PUBLISHED)
def test_a_published_config_plans_models(document, zoo):
    target = target_of(document, "x.json")
    assert target.exporters == ("aimet", "qdq_onnx")
    for build in (zoo.residual, zoo.squeeze_excite, zoo.separable):
        assert plan_for(build(), target).placement.weights


def test_integers_of_the_families():
    plain, channels, device = (target_of(PUBLISHED[key], key) for key in ("default", "default_per_channel", "device"))
    assert plain.activation == Scheme(signed=False, symmetric=False)
    assert plain.weight_scheme("conv2d") == Scheme(symmetric=False)
    assert plain.folds_first("conv2d")
    assert channels.weight_scheme("conv2d") == Scheme(axis=(-1,))
    assert channels.weight_scheme("depthwise_conv2d").axis == (-2, -1)
    assert device.weight_scheme("dense").axis == ()
    assert device.weight_scheme("conv2d").axis == (-1,)
    assert device.fixed_range == {"sigmoid": (0, 1), "softmax": (0, 1), "masked_softmax": (0, 1), "tanh": (-1, 1)}


SCHEMES = {
    "asymmetric": ({}, "activation", Scheme(signed=False, symmetric=False)),
    "symmetric": ({"activations": {"is_output_quantized": YES, "is_symmetric": YES}}, "activation", Scheme()),
    "strict": (
        {"activations": {"is_output_quantized": YES, "is_symmetric": YES}, "strict_symmetric": YES},
        "activation", Scheme(narrow=True),
    ),
    "strict_weights": ({"strict_symmetric": YES}, "weight", Scheme(narrow=True)),
    "asymmetric_weights": ({"weights": {"is_quantized": YES}}, "weight", Scheme(symmetric=False)),
    "weights_by_name": (
        {"params": {"weight": {"is_symmetric": NO}, "bias": {"is_quantized": NO}}}, "weight", Scheme(symmetric=False),
    ),
    "unsigned": (
        {"activations": {"is_output_quantized": YES, "is_symmetric": YES}, "unsigned_symmetric": YES},
        "nonnegative", Scheme(signed=False),
    ),
    "unsigned_is_nothing_to_asymmetric_ones": ({"unsigned_symmetric": YES}, "nonnegative", None),
    "of_an_op": (
        {"ops": {"Sigmoid": {"is_symmetric": YES}}}, "activation_of", {"sigmoid": Scheme()},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "field", "expected"), SCHEMES.values(), ids=SCHEMES)
def test_schemes(changes, field, expected):
    assert getattr(target_of(config(**changes), "x.json"), field) == expected


def test_the_more_specific_section_wins():
    document = config(
        params={"bias": {"is_quantized": NO}, "weight": {"is_symmetric": NO}},
        ops={
            "Conv": {"is_symmetric": YES},
            "Gemm": {"is_symmetric": YES, "params": {"weight": {"is_symmetric": NO}}},
            "MatMul": {"per_channel_quantization": NO},
        },
    )
    weights = target_of(document, "x.json").weight_of
    symmetric = {kind: scheme.symmetric for kind, scheme in weights.items()}
    plain = {kind: kind.startswith(("conv", "depthwise")) and "transpose" not in kind for kind in kinds.KERNEL_AXES}
    assert symmetric == plain
    assert target_of(document, "x.json").weight_scheme("dense").axis == ()


# Name: model of the zoo, what the config says, the quantized tensors.
PLACED = {
    "every_block": ("residual", {}, ["image", "stem/relu", "bn_a", "out_relu", "head"]),
    "no_groups": ("residual", {"groups": []}, ["image", "stem", "stem/relu", "bn_a", "join", "out_relu", "head"]),
    "no_inputs": ("residual", {"inputs": None}, ["stem/relu", "bn_a", "out_relu", "head"]),
    "an_op_is_left_alone": ("residual", {"ops": {"Relu": OFF}}, ["image", "bn_a", "head"]),
    "a_group_is_its_last_op": ("residual", {"ops": {"Add": OFF}}, ["image", "stem/relu", "bn_a", "out_relu", "head"]),
    "an_op_of_no_group": (
        "residual", {"ops": {"Add": OFF}, "groups": []}, ["image", "stem", "stem/relu", "bn_a", "out_relu", "head"],
    ),
    "only_what_is_read": (
        "residual",
        {"activations": {}, "inputs": None, "ops": {"Conv": {"is_input_quantized": YES}}},
        ["image", "stem/relu"],
    ),
    "read_through_a_reshape": (
        "residual",
        {"activations": {}, "inputs": None, "ops": {"Gemm": {"is_input_quantized": YES}}},
        ["out_relu"],
    ),
    "outputs_too": (
        "residual",
        {"activations": {}, "inputs": None, "outputs": YES, "ops": {"Conv": {"is_input_quantized": YES}}},
        ["image", "stem/relu", "head"],
    ),
    "but_not_outputs": ("residual", {"outputs": NO}, ["image", "stem/relu", "bn_a", "out_relu"]),
    "moving_shares": ("concat", {}, ["image", "a/relu", "c/relu", "cat", "head"]),
    "moving_by_name": (
        "concat", {"ops": {"MaxPool": {"is_output_quantized": YES}}}, ["image", "a/relu", "b", "c/relu", "cat", "head"],
    ),
    "concat_is_left_alone": ("concat", {"ops": {"Concat": OFF}}, ["image", "a/relu", "c/relu", "head"]),
    # GlobalAveragePool has no entry, so AveragePool speaks for it; what reads it leaves it as it is.
    "silu_is_two_ops": (
        "squeeze_excite",
        {"ops": {"AveragePool": OFF}},
        ["image", "stem", "stem/silu/sigmoid", "stem/silu", "excite", "excite/sigmoid", "scale", "head"],
    ),
    "constants": ("bare_ops", {}, ["image", "true_divide", "subtract", "relu", "head"]),
    "batch_norm_alone": ("unfoldable", {}, ["image", "conv1", "cat", "bn", "act", "act2", "head", "head/sigmoid"]),
    "folded_first": (
        "conv_net", {"per_channel_quantization": NO, "groups": [["Conv", "BatchNormalization", "Relu"]]},
        ["image", "relu1", "pool", "head", "head/softmax"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("model", "changes", "tensors"), PLACED.values(), ids=PLACED)
def test_quantized_tensors(model, changes, tensors, zoo, fresh_names):
    plan = plan_for(zoo.MODELS[model](), target_of(config(**changes), "x.json"), relu6=()).placement
    assert list(plan.activations) == tensors


def test_a_concat_left_alone_ties_its_inputs(zoo):
    plan = plan_for(zoo.concat(), target_of(config(ops={"Concat": OFF}), "x.json")).placement
    assert plan.groups == {"a/relu": "a/relu", "c/relu": "a/relu"}


def test_relu6_fuses_where_relu_does(zoo):
    target = target_of(config(groups=[["Conv", "Relu"], ["Add", "Relu"]]), "x.json")
    plan = plan_for(zoo.residual(), target).placement
    assert "stem: relu -> relu6" in plan.changes or "stem/relu: relu -> relu6" in plan.changes
    assert list(plan.activations) == ["image", "stem/relu", "bn_a", "out_relu", "head"]


def test_rules_and_float_ops_say_why(zoo):
    target = target_of(config(), "x.json")
    plan = plan_for(zoo.residual(), target, rules_from([{"match": "head", "quantize": False}])).placement
    assert plan.float_ops == {"head": "rule 'head'"}


WRONG = {
    "unknown_op": (lambda d: d["op_type"].update(Konv=OFF), ["op_type.Konv", "unknown op", "'Conv'"]),
    "unknown_op_in_a_group": (
        lambda d: d["supergroups"].append({"op_list": ["Conv", "Rellu"]}), ["supergroups.4.op_list.1", "'Relu'"],
    ),
    "short_group": (lambda d: d["supergroups"].append({"op_list": ["Conv"]}), ["supergroups.4.op_list", "2 entries"]),
    "unknown_key": (
        lambda d: d["op_type"].update(Relu={"is_output_quantised": NO}),
        ["op_type.Relu.is_output_quantised", "'is_output_quantized'"],
    ),
    "unknown_parameter": (lambda d: d["params"].update(wieght={}), ["params.wieght", "'weight'"]),
    "unknown_section": (lambda d: d.update(extra={}), ["extra: unknown key"]),
    "unknown_pass": (lambda d: d.update(supergroup_pass_list=["LayerNorm"]), ["supergroup_pass_list.0", "Matmul"]),
    "missing_section": (lambda d: d.pop("model_output"), ["model_output: is missing"]),
    "boolean": (lambda d: d["defaults"].update(strict_symmetric="true"), ["strict_symmetric", '"True" or "False"']),
    "bits": (
        lambda d: d["defaults"].update(supported_kernels=[{"activation": {"bitwidth": 7, "dtype": "int"}}]),
        ["supported_kernels.0.activation.bitwidth", "received 7"],
    ),
    "only_int16": (
        lambda d: d["op_type"].update(Conv={"supported_kernels": [{"activation": INT16, "param": INT8}]}),
        ["op_type.Conv.supported_kernels", "int8"],
    ),
    "only_int16_at_all": (
        lambda d: d["defaults"].update(supported_kernels=[{"activation": INT16, "param": INT8}]),
        ["defaults.supported_kernels", "int16"],
    ),
    "bias": (lambda d: d["params"]["bias"].update(is_quantized=YES), ["params.bias.is_quantized", "Conv", "Gemm"]),
    "bias_by_default": (lambda d: d["params"].clear(), ["params.bias.is_quantized"]),
    "bias_of_an_op": (
        lambda d: d["op_type"].update(Conv={"params": {"bias": {"is_quantized": YES}}}), ["bias", "Conv would"],
    ),
    "no_weights": (lambda d: d["defaults"].update(params={}), ["defaults.params.is_quantized", "no kernel"]),
    "float_weights_and_int8_outputs": (
        lambda d: d["op_type"].update(Gemm={"is_output_quantized": YES, "params": {"weight": {"is_quantized": NO}}}),
        ["op_type.Gemm.is_output_quantized", "weights in float"],
    ),
    "half_a_range": (
        lambda d: d["op_type"].update(Add={"encoding_constraints": {"min": 0.0}}), ["encoding_constraints", "both"],
    ),
    "a_range_without_zero": (
        lambda d: d["op_type"].update(Tanh={"encoding_constraints": {"min": 0.5, "max": 1.0}}), ["holds 0", "[0.5, 1]"],
    ),
    "an_input_of_its_own": (
        lambda d: d["op_type"].update(Conv={"is_input_quantized": YES, "is_symmetric": YES}),
        ["op_type.Conv.is_symmetric", "'False'"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "words"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_named_with_its_place(spoil, words):
    document = copy.deepcopy(config())
    spoil(document)
    with pytest.raises(AimetConfigError) as error:
        target_of(document, "device.json")
    assert len(error.value.problems) == 1
    assert str(error.value).startswith("device.json: 1 error\n")
    for word in words:
        assert word in error.value.problems[0]


def test_all_mistakes_at_once():
    document = config(ops={"Konv": OFF}, strict_symmetric="no")
    del document["supergroups"]
    with pytest.raises(AimetConfigError, match="3 errors") as error:
        target_of(document, "x.json")
    assert len(error.value.problems) == 3


FILES = {
    "missing": (None, "no such file; did you mean .*device.json"),
    "not_json": ("{'defaults': 1}", "no JSON: line 1, column 2"),
    "a_list": ("[]", "expected a JSON object, received list"),
    "twice": ('{"params": {}, "params": {"bias": {}}}', "'params' stands twice"),
    "deep": ("[" * 100_000, "cannot be read|no JSON"),
}


@pytest.mark.parametrize(("text", "message"), FILES.values(), ids=FILES)
def test_files_that_cannot_be_read(text, message, tmp_path):
    (tmp_path / "device.json").write_text("{}")
    path = tmp_path / "devices.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(AimetConfigError, match=message):
        read_target(path)


def test_a_key_that_stands_twice_alike_is_read_once(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(
        json.dumps(config()).replace(
            '"params": {"bias"', '"params": {"bias": {"is_quantized": "False"}}, "params": {"bias"', 1
        )
    )
    assert load_target(str(path)).name == "x.json"


def test_a_prepared_model_needs_the_file_no_more(tmp_path, zoo):
    path = tmp_path / "device.json"
    path.write_text(json.dumps(config()))
    model = tfqat.prepare(zoo.conv_net(), target=str(path))
    path.unlink()
    plan = model.placement
    assert plan.target == "device.json"
    assert load_target(plan.target, plan.config) == target_of(config(), "device.json")


def test_a_spec_names_a_config(tmp_path):
    path, spec = tmp_path / "device.json", tmp_path / "s.yaml"
    path.write_text(json.dumps(config()))
    spec.write_text(
        "results_dir: r\ndataset_config: {kind: digits}\nmodel_config: {architecture: resnet8, num_classes: 10}\n"
        f"training_config: {{float_epochs: 1}}\nquantization_config: {{target: {path}}}\n"
    )
    assert load_spec(spec).quantization.target == str(path)
    with pytest.raises(SpecError, match=r"received tflite, expected formats of the target .*: aimet, qdq_onnx"):
        load_spec(spec, ["export_config.formats=[tflite]"])
    path.write_text(json.dumps(config(ops={"Konv": OFF})))
    with pytest.raises(SpecError, match=r"(?s)quantization_config.target.*op_type.Konv: unknown op.*'Conv'"):
        load_spec(spec)


def test_the_list_of_onnx_ops_is_that_of_onnx():
    since: dict[str, int] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "":
            since[schema.name] = min(schema.since_version, since.get(schema.name, 99))
    newest = min(24, onnx.defs.onnx_opset_version())
    assert {name for name, version in since.items() if version <= newest} <= ONNX_OPS
    assert newest < 24 or since.keys() >= ONNX_OPS
    assert not AIMET_OPS & since.keys()


def test_the_table_names_ops_and_kinds_that_exist():
    assert {name for names in ONNX_NAMES.values() for name in names} <= ONNX_OPS | AIMET_OPS
    assert set(ONNX_NAMES) >= MOVING | NONNEGATIVE | set(kinds.KERNEL_AXES)
    activations = kinds.ACTIVATIONS & ONNX_NAMES.keys()
    assert len(activations) > 15
