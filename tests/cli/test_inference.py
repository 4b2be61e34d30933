"""`tfqat inference`: its options reach the job, wrong ones end before anything is imported; a run as a user has it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

SPEC = str(Path(__file__).parents[2] / "specs" / "digits.yaml")
CODE = """
import tfqat.cli.run
tfqat.cli.run.run_job = lambda *arguments: print(*map(str, arguments[3:]))
from tfqat.cli.main import main
main()
"""
FOLDERS = """
results_dir: r
dataset_config: {kind: image_folder, train_dir: train, val_dir: val, image_size: 16}
model_config: {python: "users_nets:net", num_classes: 2}
training_config: {enable_qat: false, float_epochs: 1}
"""
NET = """
import keras
def net(input_shape, num_classes):
    image = keras.Input(input_shape)
    x = keras.layers.Flatten()(image)
    return keras.Model(image, keras.layers.Dense(num_classes, activation="softmax")(x))
"""


def inference(*arguments, code=CODE, cwd=None, spec=SPEC):
    command = [sys.executable, "-c", code, "inference", "--spec", spec, *arguments]
    environment = os.environ | {"COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=environment)


def test_options_reach_the_job():
    assert inference("--input", "photos").stdout == "None photos None None None None False None False\n"
    files = ["--model", "a.onnx", "--cache", "b.cache", "--layer-precisions", "c.txt", "--output", "out"]
    more = ["--draw", "--threshold", "0.25", "--trust", "random_seed=1"]
    expected = "['random_seed=1'] photos out a.onnx b.cache c.txt True 0.25 True\n"
    assert inference("--input", "photos", *files, *more).stdout == expected


WRONG = {
    "no_input": ([], "--input"),
    "cache_alone": (["--input", "a", "--cache", "a.cache"], "name it with --model"),
    "precisions_alone": (["--input", "a", "--layer-precisions", "a.txt"], "name it with --model"),
    "threshold_in_percent": (["--input", "a", "--threshold", "30"], "expected a share from 0 to 1, received 30"),
    "negative_threshold": (["--input", "a", "--threshold", "-0.1"], "expected a share from 0 to 1, received -0.1"),
    "threshold_is_no_number": (["--input", "a", "--threshold", "nan"], "expected a share from 0 to 1, received nan"),
    "unknown": (["--input", "a", "--drawn"], "--draw"),
}


@pytest.mark.parametrize(("arguments", "words"), WRONG.values(), ids=WRONG)
def test_wrong_options(arguments, words):
    result = inference(*arguments)
    assert result.returncode == 2
    assert words in result.stderr
    assert result.stdout == ""


def test_a_run_and_what_goes_wrong(tmp_path):
    """Labels of a folder; a broken image, a file in the folder's place and a threshold end without a traceback."""
    for part in ("train/a", "train/b", "val/a", "val/b", "photos"):
        (tmp_path / part).mkdir(parents=True)
        Image.effect_noise((20, 18), 60).save(tmp_path / part / "x.png")
    (tmp_path / "spec.yaml").write_text(FOLDERS)
    (tmp_path / "users_nets.py").write_text(NET)
    make = "import sys; sys.path.insert(0, '.'); from users_nets import net; net((16, 16, 3), 2).save('m.keras')"
    subprocess.run([sys.executable, "-c", make], cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "file").write_text("")

    def run(*arguments):
        code = "from tfqat.cli.main import main; main()"
        return inference(*arguments, "--model", "m.keras", code=code, cwd=tmp_path, spec="spec.yaml")

    result = run("--input", "photos")
    assert (result.returncode, result.stderr) == (0, "")
    assert "on 1 image; written to r/inference" in result.stdout
    assert (tmp_path / "r/inference/result.csv").read_text().startswith("photos/x.png,")
    (tmp_path / "photos" / "y.jpg").write_text("no image")
    cases = (
        (["--input", "photos"], "photos/y.jpg"),
        (["--input", "val", "--output", "file"], "file"),
        (["--input", "val", "--threshold", "0.5"], "--threshold is for boxes"),
    )
    for arguments, words in cases:
        result = run(*arguments)
        assert result.returncode == 1
        assert words in result.stderr
        assert "Traceback" not in result.stderr
