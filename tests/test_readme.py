"""The README's examples are files that the tests run; here, that it shows those very files."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_spec = importlib.util.spec_from_file_location("readme_script", ROOT / "scripts/readme.py")
readme = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(readme)


@pytest.mark.parametrize("name", readme.EXAMPLES)
def test_an_example_is_its_file(name):
    """Where it is not: run `python scripts/readme.py`."""
    assert (ROOT / "README.md").read_text().count(readme.example_block(name)) == 1


def test_the_accelerator_is_short():
    assert len(readme.EXAMPLES["accelerator-example"].read_text().splitlines()) <= 60
