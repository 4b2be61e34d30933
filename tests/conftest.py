"""What all tests share: quiet TensorFlow, the zoo of small models, the folder of public files."""

import importlib.util
import os
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def zoo():
    """The module of small models (tests/graph/zoo.py)."""
    spec = importlib.util.spec_from_file_location("zoo", ROOT / "tests/graph/zoo.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def fresh_names():
    """Keras numbers unnamed layers from the start again."""
    import keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
