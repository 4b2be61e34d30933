"""How the time of prepare() grows with the model, and whether a model of thousands of ops goes the whole way.

DenseNet201 against DenseNet121, alternating, medians of CPU seconds; then a generated model of residual chains and
branches. The exit status is 1 where a bound is not kept; finalize and export are timed for information.

    python scripts/scale.py                          # 5,000 ops
    python scripts/scale.py --ops 1000 --no-export
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

import tfqat
from tfqat.graph.depth import room_for

# DenseNet201's prepare against DenseNet121's; seconds for the generated model, on 2 cores.
MOST_RATIO, MOST_SECONDS = 2.5, 90.0
SIDE, CHANNELS = 16, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ops", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=5, help="of each DenseNet")
    parser.add_argument("--no-export", action="store_true", help="stop once the generated model is loaded again")
    arguments = parser.parse_args()
    ratio, seconds = densenets(arguments.repeats), generated(arguments.ops, not arguments.no_export)
    missed = [f"DenseNet201 takes {ratio:.2f} times DenseNet121"] if ratio > MOST_RATIO else []
    missed += [f"prepare took {seconds:.1f} s"] if seconds > MOST_SECONDS else []
    sys.exit(f"failed: {'; '.join(missed)}" if missed else 0)


def densenets(repeats: int) -> float:
    """The median time of preparing DenseNet201 over that of DenseNet121."""
    models = [getattr(keras.applications, name)(weights=None) for name in ("DenseNet121", "DenseNet201")]
    tfqat.prepare(models[0])  # what is done once in a process is no model's
    times = [[_cpu_seconds(lambda model=model: tfqat.prepare(model)) for model in models] for _ in range(repeats)]
    small, large = map(statistics.median, zip(*times, strict=True))
    print(f"prepare, CPU seconds: DenseNet121 {small:.2f}, DenseNet201 {large:.2f}, ratio {large / small:.2f}")
    return large / small


def generated(ops: int, export: bool) -> float:
    """The seconds of preparing a generated model, which is then saved, loaded and, if asked, exported."""
    model = _step("build the float model", lambda: chains_and_branches(ops))
    start = time.perf_counter()
    qat = _step("prepare", lambda: tfqat.prepare(model))
    seconds = time.perf_counter() - start
    print(f"  {len(qat.placement.rows):,} ops, {len(qat.placement.activations):,} quantizers")
    x = np.random.default_rng(0).uniform(size=(2, SIDE, SIDE, 3)).astype("float32")
    _step("calibrate", lambda: tfqat.calibrate(qat, [x], batches=1))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        _step("save", lambda: qat.save(path))
        for label, load in (("tfqat", tfqat.load_model), ("keras.models", keras.models.load_model)):
            loaded = _step(f"{label}.load_model", lambda load=load: load(path))
            if not np.array_equal(loaded(x), qat(x)):
                sys.exit(f"{label}.load_model gives a model that computes something else")
        if export:
            final = _step("finalize", lambda: tfqat.finalize(qat))
            _step("export", lambda: tfqat.export(final, folder))
            print(_step("verify", lambda: tfqat.verify(qat, folder, x)))
    return seconds


def chains_and_branches(ops: int) -> keras.Model:
    """A float model of at least so many ops: residual blocks, every third block three branches and a Concat instead."""
    x = inputs = keras.Input((SIDE, SIDE, 3), name="image")
    x = keras.layers.Conv2D(CHANNELS, 3, name="stem")(x)
    count, number = 3, 0
    while count < ops:
        add, size = (_branches, 12) if number % 3 == 2 else (_residual, 7)
        x = add(x, f"block{number}")
        count, number = count + size, number + 1
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = keras.layers.Dense(10, name="logits")(x)
    with room_for(count):
        return keras.Model(inputs, outputs)


def _residual(x: Any, name: str) -> Any:
    y = _conv(x, 3, f"{name}_a")
    y = keras.layers.Conv2D(CHANNELS, 3, padding="same", use_bias=False, name=f"{name}_b_conv")(y)
    y = keras.layers.BatchNormalization(name=f"{name}_b_bn")(y)
    return keras.layers.ReLU(name=f"{name}_relu")(keras.layers.Add(name=f"{name}_add")([x, y]))


def _branches(x: Any, name: str) -> Any:
    parts = [_conv(x, size, f"{name}_{size}") for size in (1, 3, 5)]
    y = keras.layers.Concatenate(name=f"{name}_concat")(parts)
    y = keras.layers.Conv2D(CHANNELS, 1, name=f"{name}_out")(y)
    return keras.layers.ReLU(name=f"{name}_out_relu")(y)


def _conv(x: Any, size: int, name: str) -> Any:
    x = keras.layers.Conv2D(CHANNELS, size, padding="same", use_bias=False, name=f"{name}_conv")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(keras.layers.BatchNormalization(name=f"{name}_bn")(x))


def _step(label: str, call: Callable[[], Any]) -> Any:
    """What the call returns; prints how long it took."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = call()
    print(f"{label}: {time.perf_counter() - wall:.1f} s, CPU {time.process_time() - cpu:.1f} s", flush=True)
    return result


def _cpu_seconds(call: Callable[[], Any]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


if __name__ == "__main__":
    main()
