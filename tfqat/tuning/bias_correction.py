"""Bias correction: the mean that rounding moves in each channel, put back (empirical, arXiv:1906.04721, 4.2).

Layer by layer, each seeing what the corrected ones before it give: ``E[z] - E[z']`` of the pre-activation z of the
float model and z' of the prepared one goes to the bias; where a BatchNorm follows, its moving mean takes it, so that
training, which normalizes by the batch's own mean, is not pushed off.
"""

from __future__ import annotations

import keras
import numpy as np

from tfqat.tuning.report import Change, TuneReport
from tfqat.tuning.sites import Site, sites_of
from tfqat.tuning.subject import Subject
from tfqat.tuning.walk import Walk, moments

NAME = "bias_correction"
MEASURE = "root mean square over channels of the mean's error"
NO_BIAS = "has no bias and no BatchNorm to take it"


def correct_biases(subject: Subject) -> TuneReport:
    """Moves the biases of a calibrated prepared model in place."""
    quantized, exact = subject.walk(), subject.reference_walk()
    sites = sites_of(quantized.graph)
    changes, left = [], []
    for op in quantized.graph.ops:
        quantized.step(op)
        twin = subject.twins.get(op.name)
        if twin is not None:
            exact.step(twin)
        if op.name in sites:
            site = sites[op.name]
            if reason := site.reason or _why_not(site):
                left.append((op.name, reason))
            else:
                changes.append(_correct(site, quantized, exact))
        quantized.leave(op)
        if twin is not None:
            exact.leave(twin)
    return TuneReport(NAME, MEASURE, tuple(changes), tuple(left))


def _why_not(site: Site) -> str:
    return NO_BIAS if site.norm is None and not site.op.source.built.use_bias else ""


def _correct(site: Site, quantized: Walk, exact: Walk) -> Change:
    wanted = _mean(site, exact)
    error = wanted - _mean(site, quantized)
    if site.norm is None:
        bias = site.op.source.built.bias
        bias.assign(keras.ops.convert_to_numpy(bias) + error)
        quantized.step(site.op)
    else:
        gain, _ = site.affine(quantized.graph)
        mean = site.norm.source.built.moving_mean
        # A channel of gain 0 is constant in both, so there is no error to take.
        moved = np.divide(error, gain, out=np.zeros_like(error), where=gain != 0)
        mean.assign(keras.ops.convert_to_numpy(mean) - moved)
    return Change(site.op.name, _size(error), _size(wanted - _mean(site, quantized)))


def _mean(site: Site, walk: Walk) -> np.ndarray:
    """The mean of each channel of the pre-activation."""
    gain, shift = site.affine(walk.graph)
    return np.asarray(gain * moments(walk.values(site.op.outputs[0]))[0] + shift)


def _size(error: np.ndarray) -> float:
    return float(np.sqrt(np.square(error).mean()))
