"""Running a job: what TensorFlow says about itself is held back, and nothing else."""

from __future__ import annotations

import os

import pytest

from tfqat.cli import run

CHATTER = b"""\
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1.2    42 port.cc:153] oneDNN custom operations are on.
To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow.
"""
WORTH_READING = b"""\
W0000 00:00:1.2    42 some.cc:1] a warning
E0000 00:00:1.2    42 other.cc:2] an error
a traceback or anything else
"""
NO_GPU = b"E0000 00:00:1.2    42 cuda_platform.cc:52] failed call to cuInit: UNKNOWN ERROR (303)\n"


def test_chatter_is_held_back_and_the_rest_passes(capfd):
    with run.quiet_start():
        os.write(2, CHATTER + WORTH_READING)
        assert capfd.readouterr().err == ""
    os.write(2, b"after\n")
    assert capfd.readouterr().err == WORTH_READING.decode() + "after\n"


def test_the_rest_passes_where_the_block_fails(capfd):
    with pytest.raises(ImportError), run.quiet_start():
        os.write(2, WORTH_READING)
        raise ImportError
    assert capfd.readouterr().err == WORTH_READING.decode()


@pytest.mark.parametrize("driver", [True, False])
def test_a_missing_gpu_is_news_only_where_there_is_a_driver(capfd, monkeypatch, tmp_path, driver):
    monkeypatch.setattr(run, "_GPU_DRIVER", tmp_path if driver else tmp_path / "none")
    with run.quiet_start():
        os.write(2, NO_GPU)
    assert (capfd.readouterr().err != "") == driver
