"""Every spec that the repository holds is valid: specs/, the starter spec, and what the README shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tfqat.spec import dump_spec, load_spec

ROOT = Path(__file__).parents[2]
SPECS = [*sorted(ROOT.glob("specs/*.yaml")), ROOT / "tfqat/spec/starter.yaml"]


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.name)
def test_spec_is_valid_and_round_trips(path, tmp_path):
    spec = load_spec(path)
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(dump_spec(spec))
    assert load_spec(resolved) == spec


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.name)
def test_spec_explains_itself(path):
    assert path.read_text().startswith("# ")


def test_the_named_specs_are_there():
    assert {path.name for path in SPECS} >= {"digits.yaml", "mnist.yaml", "image_folder_mobilenetv2.yaml"}


def test_specs_of_the_readme_are_valid(tmp_path):
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    for number, block in enumerate(blocks):
        path = tmp_path / f"{number}.yaml"
        path.write_text(block)
        load_spec(path)


def test_each_commented_alternative_of_the_starter_is_a_valid_key():
    """A line such as `# decay: 0.99` must still be right when its `#` is removed."""
    from tfqat.spec.keys import all_keys

    words = {part for key in all_keys() for part in re.split(r"[.\[\]0]+", key)}
    text = (ROOT / "tfqat/spec/starter.yaml").read_text()
    commented = re.findall(r"^# *(?:- )?([a-z_]+):", text, re.MULTILINE)
    assert len(commented) > 10
    assert set(commented) <= words
