"""Writes the golden placement tables of tests/graph/golden anew; read the difference before you commit it.

python scripts/golden.py
"""

from __future__ import annotations

from pathlib import Path

import keras

import tfqat

FOLDER = Path(__file__).parent.parent / "tests/graph/golden"
MODELS = ("ResNet50", "MobileNetV2", "EfficientNetB0", "DenseNet121", "MobileNetV3Small", "InceptionV3")


def main() -> None:
    for name in MODELS:
        keras.backend.clear_session()
        plan = tfqat.placement(getattr(keras.applications, name)(weights=None))
        (FOLDER / f"{name}.txt").write_text(f"{plan}\n")
        print(f"{name}: {len(plan.rows)} ops, {100 * plan.int8_mac_share:.1f} % INT8")


if __name__ == "__main__":
    main()
