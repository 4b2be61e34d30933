"""NPU X: symmetric INT8, per-channel weights; convolution, BatchNorm and ReLU in one pass; Q/DQ ONNX.

An invented accelerator. Saved as ``tfqat/targets/npu_x.py``, it is the target ``npu_x``: in specs, in
``tfqat.prepare(model, target="npu_x")``, in ``tfqat targets`` and in the tests that every target must pass.
"""

from __future__ import annotations

from tfqat.core.scheme import Scheme
from tfqat.graph.block import chain
from tfqat.graph.target import Target

# Where the vendor says so: each claim below can be looked up there.
GUIDE = "https://example.com/npu-x/quantization-guide"

WEIGHTED = frozenset({"conv2d", "depthwise_conv2d", "dense"})
RELUS = frozenset({"relu", "relu6"})
ELEMENTWISE = frozenset({"add", "multiply"})

TARGET = Target(
    name="npu_x",
    # Integers: activations -127 to 127, and so are weights, one scale for each output channel.
    activation=Scheme(bits=8, signed=True, symmetric=True, narrow=True),
    weight=Scheme(bits=8, signed=True, symmetric=True, narrow=True),
    # ReLU outputs have no sign to spend a bit on.
    nonnegative=Scheme(bits=8, signed=False, symmetric=True),
    # Ops whose kernels and inputs are quantized.
    weighted=WEIGHTED,
    # Other ops that run on integers: their outputs have ranges of their own,
    own_range=RELUS | ELEMENTWISE | {"average_pooling2d", "global_average_pooling2d", "sigmoid"},
    # or the range of their input, since they only move integers.
    shared_range=frozenset({"max_pooling2d", "concatenate", "reshape", "flatten", "zero_padding2d"}),
    # The sigmoid's table gives [0, 1], whatever it was trained with.
    fixed_range={"sigmoid": (0.0, 1.0)},
    # Chains that run as one kernel, so nothing is rounded inside; all steps but the first may be missing.
    blocks=(
        chain("weighted_bn_relu", GUIDE, WEIGHTED, {"batch_normalization"}, RELUS),
        chain("elementwise_relu", GUIDE, ELEMENTWISE, RELUS),
    ),
    # The last layer computes in float: its logits decide.
    float_outputs=True,
    int8_weights=True,
    # Its compiler reads both, the first is the usual one. All other kinds of op stay float, and the placement says so.
    exporters=("qdq_onnx", "aimet"),
    source=GUIDE,
)
