"""EfficientDet the whole way at its own image sizes, and what a QAT step costs beside a float one.

Each net runs in a process of its own, so that its peak memory is its own; weights are random. Two tables in Markdown
are printed. The exit status is 1 where a bound is missed, a judge fails or a convolution other than the output layers
stays float.

    python scripts/efficientdet.py                       # D0 to D4: prepare, calibrate, export for tensorrt
    python scripts/efficientdet.py --nets d0 --verify    # the judges, too
    python scripts/efficientdet.py --nets --steps 20     # the step alone
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, redirect_stdout
from multiprocessing import get_context
from typing import Any

NETS = ("d0", "d1", "d2", "d3", "d4")
CLASSES = 90
# Wall seconds of D0 on 2 cores; a QAT step's CPU time over a float one's.
BOUNDS = {"prepare": 15.0, "export": 90.0}
MOST_RATIO = 1.30
# Images that are calibrated with one by one, and that the judges run together: one alone has no mean to differ from.
IMAGES, PATCHES = 2, 8
# The step: pixels, batch, objects an image, and steps that are not counted since they trace and warm up.
SIZE, BATCH, OBJECTS, WARM_UP = 256, 4, 8, 3
HEADINGS = ("net", "px", "parameters", "ops", "INT8 of MACs", "prepare", "calibrate", "export", "peak GiB", "verify")
STEP_HEADINGS = ("step", "wall ms", "CPU ms", "wall ratio", "CPU ratio")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="*", choices=NETS, default=NETS, metavar="NET", help=", ".join(NETS))
    parser.add_argument("--activation", choices=("silu", "relu6"), default="silu")
    parser.add_argument("--verify", action="store_true", help="run the judges, which hold all tensors in memory")
    parser.add_argument("--steps", type=int, default=0, help="of D0, each kind (none)")
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    failed: list[str] = []
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as processes:
        if arguments.nets:
            print(_row(HEADINGS), _row(["---"] * len(HEADINGS)), sep="\n")
        for net in arguments.nets:
            result = processes.submit(walk, net, arguments.activation, arguments.verify).result()
            print(_row(_cells(result)), flush=True)
            failed += _missed(result)
        if arguments.steps:
            times = processes.submit(alternate, arguments.activation, arguments.steps).result()
            failed += compare(times)
    sys.exit(f"failed: {'; '.join(failed)}" if failed else 0)


def walk(net: str, activation: str, verify: bool) -> dict[str, Any]:
    """One net's result; what tfqat prints goes to stderr."""
    import keras

    import tfqat
    from tfqat.models.efficientdet.model import efficientdet
    from tfqat.models.efficientdet.scaling import SCALINGS

    keras.utils.set_random_seed(0)
    size = SCALINGS[f"efficientdet_{net}"].image_size
    model = efficientdet(f"efficientdet_{net}", (size, size, 3), CLASSES, activation)
    images = _images(IMAGES, size)
    result: dict[str, Any] = {"net": net, "size": size, "parameters": model.count_params(), "seconds": {}}
    if verify:
        enliven(model, images)
    with redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as folder:
        with _timed(result, "prepare"):
            qat = tfqat.prepare(model)
        del model
        with _timed(result, "calibrate"):
            tfqat.calibrate(qat, [image[None] for image in images], batches=IMAGES)
        with _timed(result, "export"):
            tfqat.export(qat, folder)
        plan = qat.placement
        result |= {"ops": len(plan.rows), "share": plan.int8_mac_share, "peak": _peak_gib()}
        if verify:
            with _timed(result, "verify"):
                report = tfqat.verify(qat, folder, images)
            print(report)
            result["problems"] = report.problems
    return result


def enliven(model: Any, images: Any) -> None:
    """Gives each BatchNorm uneven scales and shifts, and the images' own statistics: no signal dies on its way."""
    import keras
    import numpy as np

    generator = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
            layer.gamma.assign(generator.uniform(0.5, 1.5, layer.gamma.shape))
            layer.beta.assign(generator.uniform(-0.5, 0.5, layer.beta.shape))
    model(images, training=True)


def _images(count: int, size: int) -> Any:
    """Images of random patches: all noise looks alike to a net, so that no judge could tell one from another."""
    import numpy as np

    colours = np.random.default_rng(0).uniform(0, 255, (count, PATCHES, PATCHES, 3))
    return np.kron(colours, np.ones((1, size // PATCHES, size // PATCHES, 1))).astype("float32")


@contextmanager
def _timed(result: dict[str, Any], name: str) -> Iterator[None]:
    """Notes wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    result["seconds"][name] = time.perf_counter() - wall, time.process_time() - cpu


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _cells(result: Mapping[str, Any]) -> list[str]:
    seconds = [f"{wall:.1f} s (CPU {cpu:.1f})" for wall, cpu in result["seconds"].values()]
    judged = ["not run"]
    if "problems" in result:
        judged = [f"{'FAILED' if result['problems'] else 'passed'}, {seconds.pop()}"]
    first = [result["net"].upper(), str(result["size"]), f"{result['parameters']:,}", str(result["ops"])]
    return [*first, f"{100 * result['share']:.1f} %", *seconds, f"{result['peak']:.1f}", *judged]


def _missed(result: Mapping[str, Any]) -> Iterator[str]:
    name = result["net"].upper()
    for step, bound in BOUNDS.items() if result["net"] == "d0" else ():
        if result["seconds"][step][0] > bound:
            yield f"{name}: {step} took {result['seconds'][step][0]:.1f} s, not {bound:g}"
    if result["share"] < 1:
        yield f"{name}: {100 * result['share']:.2f} % of the multiply-accumulates are INT8"
    yield from (f"{name}: {problem}" for problem in result.get("problems", ()))


def alternate(activation: str, count: int) -> dict[str, list[tuple[float, float]]]:
    """Wall and CPU seconds of D0's float and QAT steps, which alternate."""
    import keras

    import tfqat
    from tfqat.models.efficientdet.model import efficientdet

    keras.utils.set_random_seed(0)
    x = _images(BATCH, SIZE)
    model = efficientdet("efficientdet_d0", (SIZE, SIZE, 3), CLASSES, activation)
    qat = tfqat.prepare(model)
    with redirect_stdout(sys.stderr):
        tfqat.calibrate(qat, [x], method="minmax")
    steps = {"float": _step(model, x), "QAT": _step(qat, x)}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for _ in range(WARM_UP + count):
        for name, step in steps.items():
            wall, cpu = time.perf_counter(), time.process_time()
            step()
            times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {name: taken[WARM_UP:] for name, taken in times.items()}


def _step(model: Any, x: Any) -> Callable[[], Any]:
    """A training step by the detection loss towards random boxes."""
    import keras

    from tfqat.detection.losses import BOX_WEIGHT, box_loss, class_loss

    losses = {
        "class_logits": lambda wanted, logits: class_loss(keras.ops.cast(wanted[..., 0], "int32"), logits),
        "box_regression": lambda wanted, found: box_loss(wanted[..., 0], wanted[..., 1:], found),
    }
    optimizer = keras.optimizers.SGD(1e-3, momentum=0.9)
    optimizer.build(model.trainable_variables)  # else TensorFlow traces the step twice
    model.compile(optimizer, losses, {"class_logits": 1.0, "box_regression": BOX_WEIGHT}, jit_compile=False)
    wanted = _wanted()
    return lambda: model.train_on_batch(x, wanted)


def _wanted() -> dict[str, Any]:
    """What the anchors of a batch of random boxes learn: the class, for boxes the four numbers behind it."""
    import numpy as np

    from tfqat.detection.anchors import anchor_boxes
    from tfqat.detection.matching import targets

    rng = np.random.default_rng(1)
    anchors, rows = anchor_boxes((SIZE, SIZE)), []
    for _ in range(BATCH):
        corners, sides = rng.uniform(0, SIZE / 2, (OBJECTS, 2)), rng.uniform(SIZE / 16, SIZE / 2, (OBJECTS, 2))
        boxes, labels = np.hstack([corners, corners + sides]), rng.integers(0, CLASSES, OBJECTS)
        classes, codes = map(np.asarray, targets(anchors, boxes, labels))
        rows.append(np.hstack([classes[:, None], codes]).astype("float32"))
    wanted = np.stack(rows)
    return {"class_logits": wanted[..., :1], "box_regression": wanted}


def compare(times: Mapping[str, list[tuple[float, float]]]) -> Iterator[str]:
    """Prints the medians; what is beyond the bound."""
    medians = {
        name: [statistics.median(column) for column in zip(*taken, strict=True)] for name, taken in times.items()
    }
    count = len(times["QAT"])
    print(f"\nD0, {SIZE} px, batch {BATCH}: median of {count} alternating training steps\n")
    print(_row(STEP_HEADINGS), _row(["---"] * len(STEP_HEADINGS)), sep="\n")
    for name, found in medians.items():
        ratios = [f"{mine / base:.2f}" for mine, base in zip(found, medians["float"], strict=True)]
        print(_row([name, *(f"{1000 * seconds:.0f}" for seconds in found), *ratios]))
    ratio = medians["QAT"][1] / medians["float"][1]
    if ratio > MOST_RATIO:
        yield f"a QAT step takes {ratio:.2f} times a float step's CPU time, not {MOST_RATIO:.2f}"


def _row(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
