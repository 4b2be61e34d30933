"""What all tests share: quiet TensorFlow, the zoo of small models, the folder of public files."""

import fcntl
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest

# A run that decides whether a change lands takes the same examples each time; at a desk they are new ones.
hypothesis.settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")
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


@pytest.fixture(scope="session")
def tfmot_models(tmp_path_factory):
    """Folder of small models that TFMOT has quantized: NAME.h5, and NAME.npz with inputs and outputs.

    Made once, by whichever worker comes first, in a program of its own (tests/models/tfmot_factory.py).
    """
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "tfmot_models"
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "live.npz").exists():
            folder.mkdir(exist_ok=True)
            factory = [sys.executable, str(ROOT / "tests/models/tfmot_factory.py"), str(folder)]
            subprocess.run(factory, check=True, capture_output=True)
    return folder
