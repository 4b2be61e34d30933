"""Export of one keras.applications model in every format: seconds for all, and the peak memory for each target.

    python scripts/export_all.py                  # ResNet50
    python scripts/export_all.py MobileNetV2 --size 96

Weights are random. Each target's model is prepared, calibrated and saved, then loaded and exported by a process of its
own, whose peak memory is taken from the operating system. The bounds: 180 seconds in all, 4 times the float model
plus 2 GB each.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TARGETS = ("tensorrt", "tensorrt_dla", "sima", "tflite")
SECONDS, FACTOR, BYTES = 180, 4, 2e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="?", default="ResNet50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--load", help=argparse.SUPPRESS)
    parser.add_argument("--target", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if arguments.load:
        export_one(Path(arguments.load), arguments.target)
        return
    total, passed = 0.0, True
    with tempfile.TemporaryDirectory() as folder:
        for target in TARGETS:
            path = Path(folder) / f"{target}.keras"
            size = prepare_one(arguments.name, arguments.size, target, path)
            command = [sys.executable, __file__, "--load", str(path), "--target", target]
            seconds, peak = map(float, subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.split()[-2:])
            total += seconds
            passed &= peak <= FACTOR * size + BYTES
            allowed = (FACTOR * size + BYTES) / 1e9
            print(f"RESULT {arguments.name}, {target}: {seconds:.1f} s, peak {peak / 1e9:.2f} GB of {allowed:.2f} GB")
    print(f"RESULT {arguments.name}, all formats: {total:.1f} s of {SECONDS} s")
    sys.exit(0 if passed and total <= SECONDS else 1)


def prepare_one(name: str, size: int, target: str, path: Path) -> float:
    """Saves the model prepared for ``target``; bytes of the float model's weights."""
    import keras
    import numpy as np

    import tfqat

    keras.utils.set_random_seed(0)
    model = getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3))
    qat = tfqat.prepare(model, target=target)
    tfqat.calibrate(qat, images(size), method="minmax", batches=1)
    qat.save(path)
    return 4.0 * sum(int(np.prod(weight.shape)) for weight in model.weights)


def export_one(path: Path, target: str) -> None:
    """Exports a saved model in each format of its target; prints seconds and peak bytes."""
    import tfqat
    from tfqat.targets import load_target

    model = tfqat.load_model(path)
    data = images(model.input_shape[1])
    start = time.perf_counter()
    formats = [form for form in load_target(target).exporters if form == target or form not in TARGETS]
    tfqat.export(model, path.with_suffix(""), formats=formats, calibration=data)
    # Linux counts in kilobytes.
    print(time.perf_counter() - start, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def images(size: int) -> Any:
    """A few random images."""
    import numpy as np

    return np.random.default_rng(0).uniform(0, 255, (8, size, size, 3)).astype("float32")


if __name__ == "__main__":
    main()
