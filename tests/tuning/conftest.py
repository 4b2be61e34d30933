"""The module of models (nets.py)."""

import importlib.util
from pathlib import Path

import keras
import pytest


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def nets():
    spec = importlib.util.spec_from_file_location("nets", Path(__file__).with_name("nets.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
