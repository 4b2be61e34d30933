"""SiMa MLSoC: per-channel INT8 weights, asymmetric UINT8 activations (INT8 on request), Q/DQ ONNX.

Source: SiMa ModelSDK documentation, quantization-aware training. The blocks are convolution and activation, as its
MLA runs them in one pass; a residual Add stands alone.
"""

from __future__ import annotations

from tfqat.core.scheme import Scheme
from tfqat.graph.block import chain
from tfqat.graph.target import Target
from tfqat.targets.tensorrt import COMPOSITE, ELEMENTWISE, MIXING, PLAIN, SHARED, WEIGHTED, WITH_CONSTANT

GUIDE = "https://docs.sima.ai/pages/model-sdk/main.html"
UINT8, INT8 = Scheme(signed=False, symmetric=False), Scheme(signed=True, symmetric=False)

TARGET = Target(
    name="sima",
    activation=UINT8,
    activation_choices={"uint8": UINT8, "int8": INT8},
    weight=Scheme(narrow=True),
    weighted=WEIGHTED,
    own_range=PLAIN | COMPOSITE | ELEMENTWISE | WITH_CONSTANT | MIXING | {"matmul"},
    shared_range=SHARED,
    blocks=(
        chain("weighted_bn_act", GUIDE, WEIGHTED, {"batch_normalization"}, PLAIN | COMPOSITE),
        chain("elementwise_act", GUIDE, ELEMENTWISE, PLAIN | COMPOSITE),
        chain("bn_act", GUIDE, {"batch_normalization"}, PLAIN | COMPOSITE),
    ),
    int8_weights=True,
    exporters=("qdq_onnx", "aimet"),
    source=GUIDE,
)
