"""`tfqat analyze`: its options reach the job, and wrong ones end before anything is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SPEC = str(Path(__file__).parents[2] / "specs" / "digits.yaml")
CODE = """
import tfqat.cli.run
tfqat.cli.run.run_job = lambda *arguments: print(*map(str, arguments[3:]))
from tfqat.cli.main import main
main()
"""


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CODE, "analyze", "--spec", SPEC, *arguments]
    environment = os.environ | {"COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_options_reach_the_job():
    assert analyze().stdout == f"None 800 None None False None {SPEC}\n"
    options = ["--images", "20", "--budget", "1.5", "--output", "out", "--trust", "random_seed=1"]
    assert analyze(*options).stdout == f"['random_seed=1'] 20 1.5 out True None {SPEC}\n"
    assert " (0.5, None) " in analyze("--recommend").stdout
    assert " (1.5, 4) " in analyze("--recommend", "--max-drop", "1.5", "--low-bits", "4").stdout


WRONG = {
    "no_image": (["--images", "0"], "--images: expected a number of at least 1, received 0"),
    "fewer": (["--images", "-3"], "received -3"),
    "fraction": (["--images", "1.5"], "'--images'"),
    "word": (["--images", "all"], "'--images'"),
    "no_time": (["--budget", "0"], "--budget: expected seconds above 0, received 0"),
    "endless": (["--budget", "inf"], "received inf"),
    "not_a_number": (["--budget", "nan"], "received nan"),
    "drop_alone": (["--max-drop", "1"], "--max-drop 1: only --recommend searches"),
    "bits_alone": (["--low-bits", "4"], "--low-bits 4: only --recommend searches"),
    "negative_drop": (["--recommend", "--max-drop", "-1"], "--max-drop: expected points of accuracy from 0"),
    "many_bits": (["--recommend", "--low-bits", "8"], "--low-bits: expected 2 to 7, received 8"),
    "a_file": (["--output", SPEC], "expected a folder, received the file"),
}


@pytest.mark.parametrize(("arguments", "words"), WRONG.values(), ids=WRONG)
def test_wrong_options(arguments, words):
    result = analyze(*arguments)
    assert result.returncode == 2
    assert words in result.stderr
    assert result.stdout == ""
