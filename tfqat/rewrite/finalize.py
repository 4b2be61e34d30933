"""Finalize: the trained model made inference-only; BatchNorm folded, kernels on their grid, ranges frozen."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import keras
import numpy as np

from tfqat.core.scheme import SCALE_FLOOR
from tfqat.errors import TfqatError
from tfqat.graph.build import build
from tfqat.graph.graph import Graph, Op, Ref, Source, bypass, replace_ops
from tfqat.graph.kinds import IDENTITY
from tfqat.rewrite.absorbed import release
from tfqat.rewrite.bias import integer_biases
from tfqat.rewrite.fold import fold_batch_norms
from tfqat.rewrite.kernels import QuantizedKernel
from tfqat.rewrite.model import QuantizedModel
from tfqat.rewrite.quantizer import Quantizer, RangeEstimator
from tfqat.rewrite.slopes import integer_slopes
from tfqat.targets import load_target
from tfqat.view.view import view
from tfqat.view.with_weights import WithWeights

_OTHERS = frozenset({"float16", "bfloat16", "mixed_float16", "mixed_bfloat16", "float64"})


def finalize(model: QuantizedModel) -> QuantizedModel:
    """A new model for inference in float32: BatchNorm folded, kernels ``s * q``, ranges frozen, dropout gone.

    Its outputs are those of the trained model in evaluation, up to float rounding, and where the target has integer
    biases up to their rounding, which is a small part of a step. A finalized model is returned as it is.

    Raises:
        TfqatError: the model was not made by ``prepare``, or a Quantizer has seen no data.
    """
    if not isinstance(model, QuantizedModel):
        raise TfqatError(
            f"Model {model.name!r} is a {type(model).__name__}, not one that tfqat.prepare returned; prepare it, "
            "calibrate it, train it, then finalize it."
        )
    if model.finalized:
        return model
    graph = view(model)
    _check_seen(graph)
    graph = replace(graph, dtypes={name: "float32" if d in _OTHERS else d for name, d in graph.dtypes.items()})
    target = load_target(model.placement.target, model.placement.config)
    graph = replace_ops(replace_ops(release(graph), _frozen), _in_float32)
    graph = _without_identities(fold_batch_norms(graph))
    if target.integer_bias:
        graph = integer_slopes(integer_biases(graph, model.placement.shared_ops))
    return build(graph, partial(QuantizedModel, placement=model.placement, finalized=True))


def _check_seen(graph: Graph) -> None:
    layers = {op.inputs[0]: op.source.built for op in graph.ops if isinstance(op.source.built, RangeEstimator)}
    unseen = [tensor for tensor, layer in layers.items() if not layer.has_data]
    if unseen:
        names = ", ".join(unseen[:10]) + (f" and {len(unseen) - 10} more" if len(unseen) > 10 else "")
        raise TfqatError(
            f"{len(unseen)} of {len(layers)} Quantizers have seen no data: {names}. "
            "Run tfqat.calibrate on representative data, or train, first."
        )


def _frozen(op: Op) -> Op:
    """The op with nothing left to learn."""
    layer = op.source.built
    if isinstance(layer, RangeEstimator):
        return _with_fixed_range(op, layer)
    if isinstance(layer, QuantizedKernel):
        return _with_rounded_kernel(op, layer)
    return op


def _with_fixed_range(op: Op, layer: RangeEstimator) -> Op:
    fixed: dict[str, Any] = {"ranges": "fixed", "group": None, "freeze_after": None, "trainable": False}
    extent = np.asarray(keras.ops.convert_to_numpy(layer.shared_extent()))
    # The group's range is resolved here: from now on each Quantizer stands alone.
    values = (extent, np.float32(1), np.float32(1))
    if isinstance(layer, Quantizer):
        fixed["half_up"] = False
    return replace(op, source=replace(op.source, config={**op.source.config, **fixed}, values=values, built=None))


def _with_rounded_kernel(op: Op, layer: QuantizedKernel) -> Op:
    encoding = layer.kernel_encoding()
    kernel = keras.ops.convert_to_numpy(op.source.values[0])
    bias = [keras.ops.convert_to_numpy(layer.bias)] if layer.use_bias else []
    numbers = [np.maximum(encoding.scale, SCALE_FLOOR)]
    if not encoding.scheme.symmetric:
        numbers.append(encoding.zero_point.astype(np.float32))
    values = (encoding.fake_quantize(kernel), *bias, *numbers)
    config = {**op.source.config, "finalized": True, "trainable": False}
    return replace(op, source=replace(op.source, config=config, values=values, built=None))


def _in_float32(op: Op) -> Op:
    """The op in float32, whatever it trained in: half a float cannot hold the kernel's grid, no file takes a double."""
    policy = op.source.config.get("dtype")
    if policy is None or keras.dtype_policies.get(policy).name not in _OTHERS:
        return op
    config = {**op.source.config, "dtype": "float32"}
    if op.source.cls is WithWeights:
        config["variables"] = [
            {**given, "dtype": "float32" if given["dtype"] in _OTHERS else given["dtype"]}
            for given in config["variables"]
        ]
    return replace(op, source=replace(op.source, config=config, built=None))


def _without_identities(graph: Graph) -> Graph:
    """The graph without the ops that do nothing at inference; one stays where a model output must come from one."""
    identities = {op.name for op in graph.ops if op.kind in IDENTITY}
    sources = zip(graph.outputs, bypass(graph, identities).outputs, strict=True)
    ends = {tensor for tensor, source in sources if tensor != source and source in graph.inputs}
    kept = {op.name for op in graph.ops if op.outputs[0] in ends}
    # A plain one: what augments images draws random numbers at inference, too, which no exporter can write.
    plain = replace_ops(graph, lambda op: _identity(op) if op.name in kept else op)
    return bypass(plain, identities - kept)


def _identity(op: Op) -> Op:
    dtype = {key: op.source.config[key] for key in ("dtype",) if key in op.source.config}
    source = Source(keras.layers.Identity, dtype, (), (op.source.key, op.name, "identity"))
    return replace(op, source=source, args=(Ref(0),), kwargs={})
