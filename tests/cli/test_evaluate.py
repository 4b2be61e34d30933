"""`tfqat evaluate`: its options reach the job, and wrong ones end before anything is imported."""

from __future__ import annotations

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


def evaluate(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CODE, "evaluate", "--spec", SPEC, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_options_reach_the_job():
    assert evaluate().stdout == "None None None None None False\n"
    files = ["--model", "a.onnx", "--cache", "b.cache", "--layer-precisions", "c.txt", "--json", "-"]
    assert evaluate(*files, "--trust", "random_seed=1").stdout == "['random_seed=1'] a.onnx b.cache c.txt - True\n"


WRONG = {
    "cache_alone": (["--cache", "a.cache"], "name it with --model"),
    "precisions_alone": (["--layer-precisions", "a.txt"], "name it with --model"),
    "json_is_a_folder": (["--json", "."], "expected a file or -"),
    "no_value": (["--model"], "--model"),
}


@pytest.mark.parametrize(("arguments", "words"), WRONG.values(), ids=WRONG)
def test_wrong_options(arguments, words):
    result = evaluate(*arguments)
    assert result.returncode == 2
    assert words in result.stderr
    assert result.stdout == ""
