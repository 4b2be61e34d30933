"""The whole zoo, the whole way: every model prepared, calibrated, trained one step, saved, loaded, finalized, exported
to Q/DQ ONNX and a cache, and verified; docs/zoo.md is written from what was found.

Weights are random, BatchNorm statistics come from a few training batches. Each model runs in a process of its own, the
small ones first, and leaves results/zoo/<model>.json; one that is there, made by the same versions, is not run again.
The exit status is 1 where a model is refused, a judge fails or an op with multiply-accumulates stays float.

    python scripts/zoo.py                                  # all; --redo runs again what is there
    python scripts/zoo.py --only ResNet50 ViTBackbone
    python scripts/zoo.py --bounds | tee results/models.txt   # six models at 224 pixels, their times judged, no page
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from zoo_models import APPLICATIONS, Entry, batches_for, is_visual, zoo
from zoo_page import page, problems_of

# Seconds on 2 cores, for the six models that are judged by time, at their usual size.
BOUNDS = {"placement": 2.0, "prepare": 10.0, "finalize": 60.0, "export": 60.0}
TIMED = ("ResNet50", "MobileNetV2", "EfficientNetB0", "DenseNet121", "MobileNetV3Small", "InceptionV3")
USUAL_SIZE, SIZE = 224, 96
# Images a batch; models of more parameters than LARGE get the fewer.
IMAGES, FEW_IMAGES, LARGE = 8, 2, 100_000_000
PACKAGES = ("tfqat", "keras", "tensorflow", "tf2onnx", "onnxruntime", "keras-hub")


def main() -> None:
    arguments = _arguments()
    folder, found = arguments.folder, []
    folder.mkdir(parents=True, exist_ok=True)
    if arguments.count:
        print(json.dumps(_parameters(arguments.count)))
        return
    if arguments.here:
        write(folder / f"{arguments.here}.json", walk(zoo()[arguments.here], arguments.size, arguments.eager))
        return
    for name in _in_order(folder, arguments.only or list(zoo())):
        result = _kept(folder, name, arguments) or _run(folder, name, arguments)
        problems = problems_of(result, BOUNDS if arguments.bounds else {})
        print(_line(result, problems), flush=True)
        found.append((name, problems))
    if arguments.page:
        arguments.page.parent.mkdir(exist_ok=True)
        arguments.page.write_text(page([read(path) for path in sorted(folder.glob("*.json")) if path.stem in zoo()]))
    failed = [name for name, problems in found if problems]
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="MODEL", help="these models")
    parser.add_argument("--redo", action="store_true", help="run again what is there")
    parser.add_argument("--size", type=int, help=f"of the images, in pixels ({SIZE}); placement has the model's own")
    parser.add_argument("--limit", type=int, default=1800, help="seconds a model")
    parser.add_argument("--eager", action="store_true", help="train the step without a TensorFlow graph, for speed")
    parser.add_argument("--bounds", action="store_true", help=f"judge times, too, of {', '.join(TIMED)}")
    parser.add_argument("--folder", type=Path, help="of the results")
    parser.add_argument("--page", type=Path, help="where the table goes (docs/zoo.md)")
    parser.add_argument("--here", metavar="MODEL", help=argparse.SUPPRESS)
    parser.add_argument("--count", nargs="+", metavar="MODEL", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bounds:
        arguments.only = arguments.only or TIMED
    else:
        arguments.page = arguments.page or Path("docs/zoo.md")
    arguments.size = arguments.size or (USUAL_SIZE if arguments.bounds else SIZE)
    arguments.folder = arguments.folder or Path("results/zoo_timed" if arguments.bounds else "results/zoo")
    if unknown := set(arguments.only or ()) - set(zoo()):
        parser.error(f"no such model: {', '.join(sorted(unknown))}; there are {', '.join(zoo())}")
    return arguments


def walk(entry: Entry, size: int, eager: bool) -> dict[str, Any]:
    """One model's result; where a step fails, what was found until then, the step and its error."""
    result: dict[str, Any] = {"name": entry.name, "family": entry.family, "date": str(date.today()), "size": size}
    result |= {"versions": versions(), "seconds": {}, "problems": []}
    try:
        _plan(entry, result)
        _go(entry, size, eager, result)
    except Exception:  # noqa: BLE001 whatever stops a model is this table's business
        result["error"] = traceback.format_exc()
    result["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return result


def _plan(entry: Entry, result: dict[str, Any]) -> None:
    """What the model becomes at its own input size, and how long that takes."""
    import tfqat

    with _step(result, "build"):
        model = entry.build(None)
    if entry.family == APPLICATIONS and None in model.input_shape[1:]:  # some leave the size open
        with _step(result, "build"):
            model = entry.build(USUAL_SIZE)
    result["parameters"] = model.count_params()
    result["own_size"] = model.input_shape[1] if is_visual(model) else None
    with _step(result, "placement"):
        plan = tfqat.placement(model)
    with _step(result, "prepare"):
        tfqat.prepare(model)
    left = [row.kind for row in plan.rows if row.op in plan.float_ops and not row.output]
    result |= {
        "ops": len(plan.rows),
        "kernels": len(plan.weights),
        "quantizers": len(plan.activations),
        "int8_share": plan.int8_mac_share,
        "floats": dict(Counter(left).most_common()),
    }


def _go(entry: Entry, size: int, eager: bool, result: dict[str, Any]) -> None:
    """All the way at ``size``."""
    import keras

    import tfqat

    gc.collect()
    keras.utils.set_random_seed(0)
    model = entry.build(size)
    images = result["images"] = FEW_IMAGES if result["parameters"] > LARGE else IMAGES
    batches = batches_for(model, images, count=4)
    stir_batch_norms(model, batches)
    qat = tfqat.prepare(model)
    del model
    with _step(result, "calibrate"):
        tfqat.calibrate(qat, batches, batches=2)
    with _step(result, "train"):
        result["problems"] += train_one_step(qat, batches[0], eager)
    with tempfile.TemporaryDirectory() as folder:
        qat = _saved_and_loaded(qat, batches[0], Path(folder) / "qat.keras", result)
        _deploy(qat, batches[0], Path(folder), result)


def _saved_and_loaded(qat: Any, batch: Any, path: Path, result: dict[str, Any]) -> Any:
    import keras
    import numpy as np

    import tfqat

    expected = keras.tree.flatten(qat(batch))
    with _step(result, "save"):
        qat.save(path)
    del qat
    gc.collect()
    with _step(result, "load"):
        loaded = tfqat.load_model(path, compile=False)  # no optimizer: its state is as large as the model
    path.unlink()
    pairs = zip(keras.tree.flatten(loaded(batch)), expected, strict=True)
    if not all(np.array_equal(a, b) for a, b in pairs):
        result["problems"].append("the loaded model computes something else")
    return loaded


def _deploy(qat: Any, batch: Any, folder: Path, result: dict[str, Any]) -> None:
    """Finalizes, exports and verifies; notes how far the files are from the trained model."""
    import tfqat
    from tfqat.verification.report import NOISE_FACTOR, NOISE_FLOOR

    with _step(result, "finalize"):
        final = tfqat.finalize(qat)
    with _step(result, "export"):
        tfqat.export(final, folder)
    del final
    gc.collect()
    with _step(result, "verify"):
        report = tfqat.verify(qat, folder, batch)
    print(report)
    result["problems"] += report.problems
    result["allowed"] = NOISE_FACTOR * max(report.noise, NOISE_FLOOR)
    result["files"] = {
        row.name: {
            "error": row.error,
            "judged": row.judged,
            "blocks": len(row.blocks),
            "elements": sum(score.elements for score in row.blocks),
            "differing": sum(score.differing for score in row.blocks),
            "farthest": max((score.largest for score in row.blocks), default=0),
        }
        for row in report.rows
    }


def stir_batch_norms(model: Any, batches: list[Any]) -> None:
    """Makes scales, shifts and statistics of all BatchNorms non-trivial: random ones, then a few batches."""
    import keras
    import numpy as np

    generator = np.random.default_rng(1)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.5
            for weight, low, high in ((layer.gamma, 0.7, 1.3), (layer.beta, -0.2, 0.2)):
                if weight is not None:
                    weight.assign(generator.uniform(low, high, weight.shape))
    for batch in batches:
        model(batch, training=True)


def train_one_step(qat: Any, batch: Any, eager: bool) -> list[str]:
    """One step towards random outputs, in which each quantized kernel must move."""
    import keras
    import numpy as np

    from tfqat.rewrite.model import kernel_layers

    generator = np.random.default_rng(2)
    wanted = keras.tree.map_structure(lambda tensor: generator.normal(size=tensor.shape), qat(batch))
    before = {layer.name: _checksum(layer) for layer in kernel_layers(qat)}
    # Each weight moves by the learning rate in its gradient's direction, however small that is.
    optimizer = keras.optimizers.Lion(1e-5)
    optimizer.build(qat.trainable_variables)  # else TensorFlow traces the step twice
    qat.compile(optimizer, "mse", run_eagerly=eager)
    loss = qat.train_on_batch(batch, wanted)
    problems = [] if np.all(np.isfinite(loss)) else [f"the loss of the training step is {loss}"]
    still = [layer.name for layer in kernel_layers(qat) if _checksum(layer) == before[layer.name]]
    return problems + ([f"{len(still)} kernels do not learn: {', '.join(still[:5])}"] if still else [])


def _checksum(layer: Any) -> int:
    import numpy as np

    return zlib.crc32(np.ascontiguousarray(layer.weights[0].numpy()))


@contextmanager
def _step(result: dict[str, Any], name: str) -> Iterator[None]:
    """Notes how long a step took, and which one is going on."""
    result["step"], start = name, time.perf_counter()
    yield
    result["seconds"][name] = time.perf_counter() - start


def _run(folder: Path, name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """The result of a model that runs in a process of its own, which may be stopped or die."""
    path = folder / f"{name}.json"
    path.unlink(missing_ok=True)
    command = [sys.executable, __file__, "--here", name, "--size", str(arguments.size), "--folder", str(folder)]
    command += ["--eager"] * arguments.eager
    try:
        with (folder / f"{name}.log").open("w") as log:
            quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
            ended = subprocess.run(command, env=quiet, stdout=log, stderr=log, timeout=arguments.limit, check=False)
        error = f"the process ended with {ended.returncode}, see {log.name}"
    except subprocess.TimeoutExpired:
        error = f"not done within {arguments.limit} s"
    if not path.exists():
        write(path, {"name": name, "size": arguments.size, "error": error, "versions": versions()})
    return read(path)


def _kept(folder: Path, name: str, arguments: argparse.Namespace) -> dict[str, Any] | None:
    """The result that is there, made by the same versions at the same size; None where there is none."""
    path = folder / f"{name}.json"
    if arguments.redo or not path.exists():
        return None
    result = read(path)
    return result if (result["size"], result["versions"]) == (arguments.size, versions()) else None


def _in_order(folder: Path, names: list[str]) -> list[str]:
    """The models by number of parameters, which is counted once."""
    if len(names) == 1:
        return names
    path = folder / "parameters.txt"
    known = json.loads(path.read_text()) if path.exists() else {}
    if new := [name for name in names if name not in known]:
        command = [sys.executable, __file__, "--folder", str(folder), "--count", *new]
        quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        counted = subprocess.run(command, env=quiet, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
        known |= json.loads(counted.stdout)
        path.write_text(json.dumps(known))
    return sorted(names, key=known.__getitem__)


def _parameters(names: list[str]) -> dict[str, int]:
    import keras

    counts = {}
    for name in names:
        # In this scope variables have shapes and no values.
        with keras.StatelessScope():
            counts[name] = zoo()[name].build(None).count_params()
    return counts


def _line(result: Mapping[str, Any], problems: list[str]) -> str:
    seconds = ", ".join(f"{step} {took:.1f}" for step, took in result.get("seconds", {}).items())
    share = f"INT8 {100 * result['int8_share']:.1f} % of MACs" if "int8_share" in result else "no placement"
    verdict = f"FAILED {'; '.join(problems)}" if problems else "passed"
    return f"RESULT {result['name']} {result['size']} px: {share}; seconds: {seconds}; {verdict}"


def versions() -> dict[str, str]:
    """Package -> its version; those that are not installed are left out."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def write(path: Path, result: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
