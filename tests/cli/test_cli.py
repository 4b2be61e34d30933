"""The command line as a user meets it: in processes of its own."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tfqat.cli.cache_option import DEFAULT, cache_path, with_cache_path
from tfqat.cli.options import CommandError

ROOT = Path(__file__).parents[2]
DIGITS = str(ROOT / "specs" / "digits.yaml")
COMMANDS = (
    *("init", "targets", "validate", "inspect", "quantize", "train", "evaluate", "analyze", "export", "verify"),
    *("convert", "dataset-convert"),
)
HEAVY = ("tensorflow", "keras", "sklearn", "onnx", "onnxruntime", "tf2onnx", "tensorflow_model_optimization")
TFQAT = [sys.executable, "-c", "from tfqat.cli.main import main; main()"]


def tfqat(*arguments: str, cwd: Path | None = None, python: list[str] = TFQAT) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(
        [*python, *arguments], capture_output=True, text=True, cwd=cwd, env=environment, timeout=120, check=False
    )


QUICK = {
    "nothing": [],
    "help": ["--help"],
    **{f"help_{name}": [name, "--help"] for name in COMMANDS},
    "version": ["--version"],
    "targets": ["targets"],
    "validate": ["validate", "--spec", DIGITS],
    "validate_mistakes": ["validate", "--spec", DIGITS, "export_config.opset=3", "a.b=3"],
}


@pytest.mark.parametrize("arguments", QUICK.values(), ids=QUICK)
def test_quick_command_imports_no_framework_and_help_ends_with_an_example(arguments):
    code = f"""
import atexit, sys
atexit.register(lambda: print("IMPORTED", sorted(set({HEAVY}) & set(sys.modules))))
from tfqat.cli.main import main
main()
"""
    *lines, imported = tfqat(*arguments, python=[sys.executable, "-c", code]).stdout.strip().splitlines()
    assert imported == "IMPORTED []"
    if "--help" in arguments:
        last = [line.strip() for line in lines if line.strip()][-1]
        assert last.startswith(" ".join(["Example: tfqat", *arguments[:-1]]))


@pytest.mark.parametrize("arguments", [QUICK["help"], QUICK["help_train"], QUICK["validate"]], ids=str)
def test_answers_in_less_than_a_second(arguments):
    """CPU time, which other processes on the machine do not change; a start that waits for nothing takes no more."""
    tfqat(*arguments)  # compiles the modules
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    tfqat(*arguments)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime) < 1.0


def test_alone_it_prints_the_help():
    alone, asked = tfqat(), tfqat("--help")
    assert alone.returncode == 0
    assert alone.stdout.strip() == asked.stdout.strip()
    assert all(name in alone.stdout for name in COMMANDS)
    assert "completion" not in alone.stdout


def test_version():
    result = tfqat("--version")
    assert result.returncode == 0
    assert result.stdout.startswith("tfqat 0.")


def test_valid_spec():
    result = tfqat("validate", "--spec", DIGITS, "training_config.num_epochs=1")
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{DIGITS}: valid\n", "")


def test_resolved_spec_is_a_spec(tmp_path):
    path = tmp_path / "resolved.yaml"
    path.write_text(tfqat("validate", "--spec", DIGITS, "--resolved", "random_seed=7").stdout)
    assert "random_seed: 7" in path.read_text()
    assert tfqat("validate", "--spec", str(path)).returncode == 0


WRONG = {
    "mistakes": (
        ["validate", "--spec", DIGITS, "export_config.opset=3", "a=3"],
        ["2 errors", "export_config.opset", "a "],
    ),
    "no_file": (["validate", "--spec", "none.yaml"], ["none.yaml", "no such file"]),
    "a_folder": (["validate", "--spec", str(ROOT)], ["folder"]),
    "mistake_before_a_job": (
        ["train", "--spec", DIGITS, "training_config.num_epochs=x"],
        ["training_config.num_epochs"],
    ),
    "bad_override": (["train", "--spec", DIGITS, "epochs"], ["key=value"]),
    "no_spec": (["train"], ["--spec"]),
    "no_value": (["train", "--spec"], ["--spec"]),
    "unknown_command": (["trian"], ["trian", "train"]),
    "unknown_option": (["train", "--spce", DIGITS], ["--spce", "--spec"]),
}


@pytest.mark.parametrize(("arguments", "words"), WRONG.values(), ids=WRONG)
def test_wrong_command_exits_with_2_and_one_message(arguments, words):
    result = tfqat(*arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr


def test_debug_shows_the_traceback():
    result = tfqat("validate", "--spec", "none.yaml", "--debug")
    assert "Traceback" in result.stderr
    assert "SpecError" in result.stderr


FAILING = {
    "user_error": ("from tfqat.errors import TfqatError as E; raise E('this way')", 1, "tfqat: error: this way\n"),
    "os_error": ("open('/none/file')", 1, "/none/file"),
    "unforeseen": ("{}['key']", 1, "KeyError: 'key'\nRun again with --debug"),
    "interrupt": ("raise KeyboardInterrupt", 130, "tfqat: interrupted\n"),
    "exit": ("import sys; sys.exit(1)", 1, ""),
}


@pytest.mark.parametrize(("statement", "code", "message"), FAILING.values(), ids=FAILING)
def test_failing_job(statement, code, message):
    """A job that is replaced by one statement."""
    script = f"""
import tfqat.cli.run
def run_job(*arguments): {statement}
tfqat.cli.run.run_job = run_job
from tfqat.cli.main import main
main()
"""
    result = tfqat("train", "--spec", DIGITS, python=[sys.executable, "-c", script])
    assert result.returncode == code
    assert "Traceback" not in result.stderr
    assert message in result.stderr


def test_ctrl_c_while_running():
    script = """
import time, tfqat.cli.run
def run_job(*arguments):
    print("started", flush=True)
    time.sleep(60)
tfqat.cli.run.run_job = run_job
from tfqat.cli.main import main
main()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script, "train", "--spec", DIGITS],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts what runs in its background with SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    process.stdout.readline()
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, "tfqat: interrupted\n")


@pytest.mark.parametrize("arguments", [["--help"], ["validate", "--spec", DIGITS, "--resolved"]], ids=str)
def test_reader_that_goes_away(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.run([*TFQAT, *arguments], stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert process.stderr == ""


def test_init_writes_a_spec_that_is_valid(tmp_path):
    assert tfqat("init", cwd=tmp_path).returncode == 0
    assert tfqat("validate", "--spec", "spec.yaml", cwd=tmp_path).returncode == 0
    assert (tmp_path / "spec.yaml").read_text().count("#") > 20


def test_init_overwrites_only_by_force(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("mine")
    refused = tfqat("init", str(path))
    assert refused.returncode == 2
    assert "--force" in refused.stderr
    assert path.read_text() == "mine"
    assert tfqat("init", str(path), "--force").returncode == 0
    assert path.read_text() != "mine"


def test_init_names_what_it_cannot_write(tmp_path):
    for path in (tmp_path, tmp_path / "none" / "spec.yaml"):
        result = tfqat("init", str(path))
        assert result.returncode == 2
        assert str(path) in result.stderr


CACHE = {
    "last": (["--spec", "s", "--cache"], DEFAULT),
    "before_an_option": (["--cache", "--spec", "s"], DEFAULT),
    "before_an_override": (["--spec", "s", "--cache", "export_config.opset=13"], DEFAULT),
    "path": (["--spec", "s", "--cache", "out/my.cache", "export_config.opset=13"], "out/my.cache"),
}


@pytest.mark.parametrize(("arguments", "expected"), CACHE.values(), ids=CACHE)
def test_cache_with_and_without_a_path(arguments, expected):
    filled = with_cache_path(arguments)
    assert filled[filled.index("--cache") + 1] == expected
    assert [word for word in filled if word != DEFAULT] == arguments


def test_cache_in_a_folder_gets_the_usual_name(tmp_path):
    assert cache_path(str(tmp_path)) == tmp_path / "model.cache"
    assert cache_path(f"{tmp_path}/new/") == tmp_path / "new" / "model.cache"
    assert cache_path(f"{tmp_path}/x.cache") == tmp_path / "x.cache"
    assert cache_path(None) is cache_path(DEFAULT) is None
    with pytest.raises(CommandError, match="empty path"):
        cache_path(" ")


def test_cache_path_reaches_the_job():
    script = """
import tfqat.cli.run
tfqat.cli.run.run_job = lambda *arguments: print(arguments[3:])
from tfqat.cli.main import main
main()
"""
    python = [sys.executable, "-c", script]
    overrides = ["export_config.opset=13"]
    bare = tfqat("export", "--spec", DIGITS, "--cache", *overrides, python=python).stdout
    assert bare == "(['export_config.opset=13'], None, True, False, False)\n"
    given = {"export": ", True, False, False", "verify": ", False"}
    for command, rest in given.items():
        path = tfqat(command, "--spec", DIGITS, "--cache", "a/b.cache", python=python).stdout
        assert path == f"(None, PosixPath('a/b.cache'){rest})\n"
    assert tfqat("export", "--spec", DIGITS, "--cache=c.cache", python=python).stdout == (
        "(None, PosixPath('c.cache'), True, False, False)\n"
    )
    assert tfqat("export", "--spec", DIGITS, "--c-array", python=python).stdout == "(None, None, False, True, False)\n"
