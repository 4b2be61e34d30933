"""Step time: tfqat's QAT step against the same float model's, and TFMOT's against its own.

Two processes (Keras 3 with tfqat, tf_keras with TFMOT) hold the models; their training steps alternate, one at a time,
so that all see the same machine. tfqat's rows: ranges by moving average, that on an eighth of each batch, and learned
by gradient (activations and kernels). Printed: medians of wall and CPU time, ratios to float, and peak memory (each
model in a process of its own).

    python scripts/bench.py                      # MobileNetV2 alpha 1.0 and 0.35, 96 px, batch 32, median of 40
    python scripts/bench.py --steps 10 --alpha 0.35
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

SIZE, BATCH, CLASSES = 96, 32, 10
TFQAT = {
    "float": None,
    "tfqat": {},
    "tfqat, an eighth observed": {"observe_fraction": 0.125},
    "tfqat, learned ranges": {"ranges": "learned"},
}
TFMOT = {"float (tf_keras)": False, "TFMOT": True}
Step = Callable[[], None]


def tfqat_steps(alpha: float, names: list[str]) -> dict[str, Step]:
    """Training steps of Keras 3 models: float, and prepared by tfqat."""
    import keras
    import numpy as np

    import tfqat

    keras.utils.set_random_seed(0)
    x = np.random.rand(BATCH, SIZE, SIZE, 3).astype("float32") * 2 - 1
    base = keras.applications.MobileNetV2(weights=None, alpha=alpha, input_shape=(SIZE, SIZE, 3), classes=CLASSES)
    steps = {}
    for name in names:
        options = TFQAT[name]
        model = base if options is None else tfqat.prepare(base, **options)
        if options is not None:
            tfqat.calibrate(model, [x], method="minmax")
        steps[name] = _step(model, keras.optimizers.SGD(0.01), x)
    return steps


def tfmot_steps(alpha: float, names: list[str]) -> dict[str, Step]:
    """Training steps of tf_keras models: float, and quantized by TFMOT."""
    import numpy as np
    import tensorflow_model_optimization as tfmot
    import tf_keras

    x = np.random.rand(BATCH, SIZE, SIZE, 3).astype("float32") * 2 - 1
    steps = {}
    for name in names:
        model = tf_keras.applications.MobileNetV2(
            weights=None, alpha=alpha, input_shape=(SIZE, SIZE, 3), classes=CLASSES
        )
        if TFMOT[name]:
            model = tfmot.quantization.keras.quantize_model(model)
        steps[name] = _step(model, tf_keras.optimizers.SGD(0.01), x)
    return steps


def _step(model: object, optimizer: object, x: object) -> Step:
    import numpy as np

    y = np.arange(BATCH) % CLASSES
    model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=False)
    return lambda: model.train_on_batch(x, y)


SIDES = {"tfqat": (tfqat_steps, TFQAT), "tfmot": (tfmot_steps, TFMOT)}


def serve(side: str, alpha: float, names: list[str]) -> None:
    """Runs one step for each name that comes in, and answers wall seconds, CPU seconds and peak memory (KiB)."""
    steps = SIDES[side][0](alpha, names)
    for step in steps.values():
        step()
    print("ready", flush=True)
    for line in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        steps[line.strip()]()
        times = time.perf_counter() - wall, time.process_time() - cpu
        print("answer", *times, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, flush=True)


class Server:
    """A process that holds models and steps them on request."""

    def __init__(self, side: str, alpha: float, names: list[str]) -> None:
        command = [sys.executable, __file__, "--serve", side, "--alpha", str(alpha), "--names", *names]
        quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        self.names = names
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=quiet
        )
        self._read("ready")

    def step(self, name: str) -> tuple[float, float, int]:
        """Wall seconds, CPU seconds, peak memory in KiB."""
        self.process.stdin.write(f"{name}\n")
        self.process.stdin.flush()
        wall, cpu, peak = self._read("answer")
        return float(wall), float(cpu), int(peak)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()

    def _read(self, word: str) -> list[str]:
        for line in self.process.stdout:
            if line.startswith(word):
                return line.split()[1:]
        sys.exit(f"{self.names}: the process ended.\n{self.process.stderr.read()[-2000:]}")


def compare(alpha: float, count: int) -> None:
    """Prints the table for one width of MobileNetV2."""
    servers = [Server(side, alpha, list(models)) for side, (_, models) in SIDES.items()]
    times: dict[str, list[tuple[float, float, int]]] = {}
    for _ in range(count + 3):
        for server in servers:
            for name in server.names:
                times.setdefault(name, []).append(server.step(name))
    for server in servers:
        server.close()
    wall = {name: statistics.median(t[0] for t in taken[3:]) for name, taken in times.items()}
    cpu = {name: statistics.median(t[1] for t in taken[3:]) for name, taken in times.items()}
    memory = {name: peak_memory(side, alpha, name) for side, (_, models) in SIDES.items() for name in models}
    print(f"\nMobileNetV2 alpha {alpha}, {SIZE} px, batch {BATCH}: median of {count} alternating training steps")
    print(f"{'':28}{'wall ms':>9}{'CPU ms':>9}{'wall ratio':>12}{'CPU ratio':>11}{'peak memory ratio':>19}")
    for models in (TFQAT, TFMOT):
        base = next(iter(models))
        for name in models:
            ratios = wall[name] / wall[base], cpu[name] / cpu[base], memory[name] / memory[base]
            print(
                f"{name:28}{1000 * wall[name]:9.1f}{1000 * cpu[name]:9.1f}"
                f"{ratios[0]:12.2f}{ratios[1]:11.2f}{ratios[2]:19.2f}"
            )


def peak_memory(side: str, alpha: float, name: str) -> int:
    """Peak resident memory (KiB) of a process that trains this model alone."""
    server = Server(side, alpha, [name])
    peak = [server.step(name)[2] for _ in range(3)][-1]
    server.close()
    return peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alpha", type=float, nargs="*", default=[1.0, 0.35])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--serve", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--names", nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments.alpha[0], arguments.names)
        return
    for alpha in arguments.alpha:
        compare(alpha, arguments.steps)


if __name__ == "__main__":
    main()
