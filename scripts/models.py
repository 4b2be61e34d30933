"""The whole way, but for training, on keras.applications models: placement, prepare, finalize, export, verify; timed.

Weights are random, BatchNorm statistics come from a few training batches. Each model runs in a process of its own and
prints one line; the exit status is 1 where a bound or a judge fails.

    python scripts/models.py                             # the six models of the acceptance
    python scripts/models.py MobileNetV2 --size 96
    python scripts/models.py EfficientNetV2L --size 64 --untimed   # the bounds of time are those of the six
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

MODELS = ("ResNet50", "MobileNetV2", "EfficientNetB0", "DenseNet121", "MobileNetV3Small", "InceptionV3")
# Seconds, on 2 cores.
BOUNDS = {"placement": 2, "prepare": 10, "finalize": 60, "export": 60}


def judge(name: str, size: int, batches: int, timeless: bool) -> bool:
    """Runs one model and prints its line; whether it is within all bounds, those of time aside if ``timeless``."""
    import keras
    import numpy as np

    import tfqat

    keras.utils.set_random_seed(0)
    model = getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3))
    x = np.random.default_rng(0).uniform(0, 255, (8 * batches, size, size, 3)).astype("float32")
    stir_batch_norms(model, x)
    took: dict[str, float] = {}
    plan = timed(took, "placement", lambda: tfqat.placement(model))
    qat = timed(took, "prepare", lambda: tfqat.prepare(model))
    timed(took, "calibrate", lambda: tfqat.calibrate(qat, x, batches=2))
    final = timed(took, "finalize", lambda: tfqat.finalize(qat))
    with tempfile.TemporaryDirectory() as folder:
        timed(took, "export", lambda: tfqat.export(final, folder))
        report = timed(took, "verify", lambda: tfqat.verify(qat, folder, x[:8]))
    print(report)
    late = [f"{step} {took[step]:.1f} s" for step, bound in BOUNDS.items() if took[step] > bound and not timeless]
    passed = report.passed and plan.int8_mac_share == 1.0 and not late
    times = ", ".join(f"{step} {seconds:.1f}" for step, seconds in took.items())
    print(
        f"RESULT {name} {size} px: INT8 {100 * plan.int8_mac_share:.1f} % of MACs; seconds: {times}; "
        f"{'passed' if passed else 'FAILED'} {'; '.join([*report.problems, *late])}"
    )
    return passed


def stir_batch_norms(model: Any, x: Any) -> None:
    """Makes scales, shifts and statistics of all BatchNorms non-trivial: random ones, then a few batches."""
    import keras
    import numpy as np

    generator = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.5
            for weight, low, high in ((layer.gamma, 0.7, 1.3), (layer.beta, -0.2, 0.2)):
                if weight is not None:
                    weight.assign(generator.uniform(low, high, weight.shape))
    for start in range(0, len(x), 8):
        model(x[start : start + 8], training=True)


def timed(took: dict[str, float], step: str, call: Callable[[], Any]) -> Any:
    start = time.perf_counter()
    result = call()
    took[step] = time.perf_counter() - start
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--untimed", action="store_true", help="judge no times")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        sys.exit(not judge(arguments.models[0], arguments.size, arguments.batches, arguments.untimed))
    failed = []
    for name in arguments.models:
        command = [sys.executable, __file__, name, "--here", "--size", str(arguments.size)]
        command += ["--untimed"] * arguments.untimed
        quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        if subprocess.run([*command, "--batches", str(arguments.batches)], env=quiet, check=False).returncode:
            failed.append(name)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
