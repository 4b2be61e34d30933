"""A spec with more rules: read back it is the spec that is meant, and its comments are kept where they can be."""

from __future__ import annotations

import pytest

from tfqat.spec.load import load_spec
from tfqat.spec.schema import Rule
from tfqat.spec.with_rules import with_rules

BASE = """# first
results_dir: results/a  # where
dataset_config: {kind: digits}
training_config: {float_epochs: 1}
model_config:
  architecture: resnet8   # small
  num_classes: 10
"""
SECTIONS = {
    "none": "",
    "no_line_end": "export_config: {opset: 17}",
    "no_rules": "quantization_config:\n  target: sima # the device\n\n# last\nexport_config: {opset: 17}\n",
    "rules": """quantization_config:
    rules: # mine
    - match: 'stage*'  # all of them
      relu6: false
    target: sima
""",
    "indented": """quantization_config:
  rules:

    # both
    - {match: a, relu6: false}
    - {match: b, relu6: true}
""",
    "in_brackets": "quantization_config:\n  rules: [{match: 'a,b', relu6: false}]  # mine\n  target: sima\n",
    "empty": "quantization_config:\n  rules: []  # none yet\n  target: sima\n",
    "over_lines": "quantization_config:\n  rules: [\n    {match: a, relu6: false},  # mine\n  ]\n  target: sima\n",
}
RULES = [{"match": "it's [a], {b}: # *", "quantize": False}, {"match": "123", "weight_bits": 4}]
REASONS = ["one: 3 % of it", "two"]


def made(tmp_path, text, overrides=(), rules=RULES, reasons=REASONS):
    """The text, and whether it says what is meant."""
    source = tmp_path / "spec.yaml"
    source.write_text(text)
    spec = load_spec(source, overrides)
    section = spec.quantization
    section = section.model_copy(update={"rules": (*(Rule.model_validate(r) for r in rules), *section.rules)})
    meant = spec.model_copy(update={"quantization": section, "results_dir": "results/a: b/recommended"})
    found = with_rules(text, meant, rules, reasons, ["told"])
    (tmp_path / "new.yaml").write_text(found)
    assert load_spec(tmp_path / "new.yaml") == meant
    return found


@pytest.mark.parametrize("section", SECTIONS.values(), ids=SECTIONS)
def test_comments_stay_and_the_reasons_are_there(section, tmp_path):
    found = made(tmp_path, BASE + section)
    kept = [line.partition("#")[2].strip() for line in (BASE + section).splitlines() if "#" in line]
    lost = {"mine"} if "[\n" in section else set()
    for words in ["first", "where", "small", *kept, *REASONS, "told"]:
        assert f"# {words}" in found or words in lost, words


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        (BASE + "quantization_config: {target: sima, rules: [{match: a, relu6: false}]} # in braces\n", ()),
        (BASE, ["quantization_config.target=sima"]),
        (
            "{results_dir: x, dataset_config: {kind: digits}, model_config: {architecture: resnet8, num_classes: 10}, "
            "training_config: {float_epochs: 1}}",
            (),
        ),
        (BASE + "quantization_config:\n  rules: &rules\n  - &a {match: a, relu6: false}\n  - *a\n", ()),
    ],
    ids=["section_in_braces", "overrides", "all_in_braces", "aliases"],
)
def test_where_the_text_cannot_be_changed_the_spec_is_written_whole(text, overrides, tmp_path):
    found = made(tmp_path, text, overrides)
    assert "# one: 3 % of it" in found
    assert found.startswith("# told\n")


def test_without_rules_only_the_folder_changes(tmp_path):
    found = made(tmp_path, BASE, rules=[], reasons=[])
    assert found == "# told\n\n" + BASE.replace("results/a ", "'results/a: b/recommended' ")
