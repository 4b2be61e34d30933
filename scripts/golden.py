"""Writes the golden placement tables of tests/graph/golden anew; read the difference before you commit it.

python scripts/golden.py
"""

from __future__ import annotations

from pathlib import Path

import keras

import tfqat

FOLDER = Path(__file__).parent.parent / "tests/graph/golden"
# Target -> models.
TABLES = {
    "tensorrt": ("ResNet50", "MobileNetV2", "EfficientNetB0", "DenseNet121", "MobileNetV3Small", "InceptionV3"),
    "tflite": ("MobileNetV2", "EfficientNetB0", "DenseNet121", "MobileNetV3Small", "InceptionV3"),
    "sima": ("ResNet50", "MobileNetV3Small"),
}


def main() -> None:
    for target, models in TABLES.items():
        (FOLDER / target).mkdir(parents=True, exist_ok=True)
        for name in models:
            keras.backend.clear_session()
            plan = tfqat.placement(getattr(keras.applications, name)(weights=None), target)
            (FOLDER / target / f"{name}.txt").write_text(f"{plan}\n")
            print(f"{target}, {name}: {len(plan.rows)} ops, {100 * plan.int8_mac_share:.1f} % INT8")


if __name__ == "__main__":
    main()
