"""The Keras hook: tfqat's layers are registered, in whichever order the packages are imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

ORDERS = {
    "tfqat first": "import tfqat, keras",
    "keras first": "import keras, tfqat",
    # TensorFlow asks whether there is a Keras, long before it is imported.
    "keras asked for before it is imported": "import tfqat, importlib.util; importlib.util.find_spec('keras')",
    "by tensorflow": "import tfqat, tensorflow",
    # Modules that import Keras, and that what is registered imports.
    "by the maths of detection": "from tfqat.detection.boxes import iou",
    "by a view": "from tfqat.view.custom import quantizable",
    "by a model": "from tfqat.models.keras2 import activations",
    "by a layer": "from tfqat.rewrite.quantizer import Quantizer",
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_the_layers_are_registered(order):
    script = f"{order}; import keras; print(keras.saving.get_registered_object('tfqat>Quantizer').__module__)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "tfqat.rewrite.quantizer", result.stderr
