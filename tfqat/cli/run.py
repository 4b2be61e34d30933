"""Running a job: the spec is checked first, and only then TensorFlow and Keras are imported, without their chatter."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from tfqat.spec import load_spec

# What TensorFlow prints about itself while it starts, before its log level counts: lines of level I, and what
# surrounds them. Warnings and errors pass, but for the one that says that a machine without a GPU has none.
_CHATTER = re.compile(rb"I\d{4} |WARNING: All log messages before absl::InitializeLog|To enable the following instr")
_NO_GPU = re.compile(rb"E\d{4} .*failed call to cuInit")
_GPU_DRIVER = Path("/dev/nvidiactl")


def run_job(name: str, verb: str, spec: Path, overrides: Sequence[str] | None, *arguments: Any) -> None:
    """Runs ``tfqat.jobs.<name>.<verb>`` with the loaded spec and ``arguments``.

    Raises:
        SpecError: the spec is not valid; nothing has been imported by then.
    """
    loaded = load_spec(spec, overrides or ())
    with quiet_start():
        tensorflow = import_module("tensorflow")
        tensorflow.config.list_physical_devices()
        # Each form of the model (float, PTQ, QAT, ...) is compiled once, and should be.
        tensorflow.get_logger().addFilter(lambda record: "triggered tf.function retracing" not in record.getMessage())
        job = import_module(f"tfqat.jobs.{name}")
        import_module("keras")
    getattr(job, verb)(loaded, *arguments)


@contextmanager
def quiet_start() -> Iterator[None]:
    """Holds back what is written to the process's standard error in the block, and then passes on all but chatter."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    screen = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(screen, 2)
            os.close(screen)
            held.seek(0)
            os.write(2, b"".join(line for line in held if not _is_chatter(line)))


def _is_chatter(line: bytes) -> bool:
    return bool(_CHATTER.match(line) or (_NO_GPU.match(line) and not _GPU_DRIVER.exists()))
