"""Writes the golden placement tables of tests/graph/golden anew; read the difference before you commit it.

python scripts/golden.py
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import keras

import tfqat
from tfqat.models.efficientdet.model import efficientdet
from tfqat.models.efficientdet.scaling import SCALINGS

FOLDER = Path(__file__).parent.parent / "tests/graph/golden"
# Target -> models.
TABLES = {
    "tensorrt": ("ResNet50", "MobileNetV2", "EfficientNetB0", "DenseNet121", "MobileNetV3Small", "InceptionV3"),
    "tflite": ("MobileNetV2", "EfficientNetB0", "DenseNet121", "MobileNetV3Small", "InceptionV3"),
    "sima": ("ResNet50", "MobileNetV3Small"),
}
# Detectors, of 90 classes and the size of images that is theirs.
DETECTORS = ("efficientdet_d0",)

# Models of the users' structures, from the file that their test reads.
STRUCTURES = FOLDER.parent.parent / "structures/structures.py"


def main() -> None:
    write_applications()
    write_structures()
    write_detectors()


def write_structures() -> None:
    spec = importlib.util.spec_from_file_location("structures", STRUCTURES)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (FOLDER / "structures").mkdir(parents=True, exist_ok=True)
    for name, make in module.MODELS.items():
        keras.backend.clear_session()
        plan = tfqat.placement(make())
        (FOLDER / "structures" / f"{name}.txt").write_text(f"{plan}\n")
        print(f"structures, {name}: {len(plan.rows)} ops, {100 * plan.int8_mac_share:.1f} % INT8")


def write_detectors() -> None:
    (FOLDER / "detectors").mkdir(parents=True, exist_ok=True)
    for name in DETECTORS:
        keras.backend.clear_session()
        size = SCALINGS[name].image_size
        plan = tfqat.placement(efficientdet(name, (size, size, 3), 90))
        (FOLDER / "detectors" / f"{name}.txt").write_text(f"{plan}\n")
        print(f"detectors, {name}: {len(plan.rows)} ops, {100 * plan.int8_mac_share:.1f} % INT8")


def write_applications() -> None:
    for target, models in TABLES.items():
        (FOLDER / target).mkdir(parents=True, exist_ok=True)
        for name in models:
            keras.backend.clear_session()
            plan = tfqat.placement(getattr(keras.applications, name)(weights=None), target)
            (FOLDER / target / f"{name}.txt").write_text(f"{plan}\n")
            print(f"{target}, {name}: {len(plan.rows)} ops, {100 * plan.int8_mac_share:.1f} % INT8")


if __name__ == "__main__":
    main()
