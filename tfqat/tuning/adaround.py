"""AdaRound: each kernel's weights rounded up or down so that its layer's output errs least (arXiv:2004.10568).

Layer by layer; each one sees what the rounded layers before it give and aims at what the float model gives
("asymmetric reconstruction", section 3.3). The float kernel becomes ``s * q``, which rounds to q again by the layer's
own scale: by ``max|w| / qmax``, since the largest weight of a channel keeps its place, and by a held or learned one.
"""

from __future__ import annotations

import keras
import numpy as np

from tfqat.tuning.patches import KINDS, as_kernel, as_matrices, groups_of, output_count, patches
from tfqat.tuning.report import Change, TuneReport
from tfqat.tuning.rounding import Grid, Target, learn_rounding
from tfqat.tuning.sites import Site, sites_of
from tfqat.tuning.subject import Subject
from tfqat.tuning.walk import Walk

NAME = "adaround"
MEASURE = "squared error of the layer's output, as a share of its square"
# Patches that are looked at for each layer: of an image those of some places, which are much alike.
PATCHES = 16384


def round_adaptively(subject: Subject) -> TuneReport:
    """Sets the kernels of a calibrated prepared model in place."""
    quantized, exact = subject.walk(), subject.reference_walk()
    sites = sites_of(quantized.graph)
    changes, left = [], []
    for op in quantized.graph.ops:
        twin = subject.twins.get(op.name)
        if twin is not None:
            exact.step(twin)
        if op.name in sites:
            if reason := sites[op.name].reason or _why_not(sites[op.name]):
                left.append((op.name, reason))
            else:
                changes.append(_round(sites[op.name], quantized, exact))
        quantized.step(op)
        quantized.leave(op)
        if twin is not None:
            exact.leave(twin)
    return TuneReport(NAME, MEASURE, tuple(changes), tuple(left))


def _why_not(site: Site) -> str:
    if site.op.kind not in KINDS:
        return f"{NAME} knows no {site.op.kind}"
    return "" if site.op.source.built.weight_scheme.symmetric else "its kernel's integers are asymmetric"


def _round(site: Site, quantized: Walk, exact: Walk) -> Change:
    op, layer = site.op, site.op.source.built
    target = _target(site, quantized, exact)
    encoding = layer.kernel_encoding()
    kernel = as_matrices(op, np.asarray(keras.ops.convert_to_numpy(layer.kernel), np.float64))
    shape = (kernel.shape[0], 1, kernel.shape[2]) if encoding.scheme.per_channel else (1, 1, 1)
    grid = Grid(encoding.scale.astype(np.float64).reshape(shape), encoding.scheme.qmin, encoding.scheme.qmax)
    integers = learn_rounding(kernel, grid, target)
    layer.kernel.assign(as_kernel(op, integers * grid.scale).astype(np.float32))
    square = max(float(target.square.sum()), 1e-30)
    nearest, learned = (float(target.error(q * grid.scale).sum()) for q in (grid.nearest(kernel), integers))
    return Change(op.name, nearest / square, learned / square)


def _target(site: Site, quantized: Walk, exact: Walk) -> Target:
    """From the prepared model's inputs of the layer and the float model's pre-activation."""
    op, groups = site.op, groups_of(site.op)
    generator = np.random.default_rng(0)
    count, sums = 0, (0.0, 0.0, 0.0)
    share = -(-PATCHES // max(len(quantized.batches), 1))
    for seen, wanted in zip(quantized.values(op.inputs[0]), _wanted(site, quantized, exact), strict=True):
        places = len(wanted)
        chosen = np.arange(places) if places <= share else generator.choice(places, share, replace=False)
        x = np.moveaxis(patches(op, seen, chosen).astype(np.float64), 0, 1)  # (groups, places, k)
        t = np.moveaxis(wanted[chosen].reshape(len(chosen), groups, -1), 0, 1)
        back = np.swapaxes(x, 1, 2)
        sums = tuple(s + part for s, part in zip(sums, (back @ x, back @ t, np.square(t).sum(axis=1)), strict=True))
        count += len(chosen)
    return Target(*(np.asarray(s) / count for s in sums))


def _wanted(site: Site, quantized: Walk, exact: Walk) -> list[np.ndarray]:
    """What the kernel alone should give, ``(places, outputs)`` a batch, for the float model's pre-activation.

    Bias and BatchNorm of the prepared model may have been moved by another method, so they are taken off as they are.
    """
    layer, channels = site.op.source.built, output_count(site.op)
    gain, shift = (np.broadcast_to(number, channels) for number in site.affine(exact.graph))
    own_gain, own_shift = (np.broadcast_to(number, channels) for number in site.affine(quantized.graph))
    bias = np.asarray(keras.ops.convert_to_numpy(layer.bias), np.float64) if layer.use_bias else np.zeros(channels)
    living = own_gain != 0  # a channel of gain 0 is constant, and any kernel right
    factor = np.divide(gain, own_gain, out=np.ones(channels), where=living)
    offset = np.divide(shift - own_shift, own_gain, out=np.zeros(channels), where=living) - bias
    return [factor * given.reshape(-1, channels) + offset for given in exact.values(site.op.outputs[0])]
