"""What the tests of models share: the folder of models that tf_keras has saved."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def keras2_models(tmp_path_factory):
    """Folder of models of tf_keras: NAME.h5, NAME.keras, NAME (a SavedModel), NAME.npz with inputs and outputs.

    Made once, by whichever worker comes first, in a program of its own (keras2_factory.py).
    """
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "keras2_models"
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "live.npz").exists():
            folder.mkdir(exist_ok=True)
            factory = [sys.executable, str(Path(__file__).parent / "keras2_factory.py"), str(folder)]
            done = subprocess.run(factory, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
    return folder
