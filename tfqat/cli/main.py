"""The program `tfqat`: runs the command line and turns what goes wrong into one message and an exit code.

0: done. 1: the job failed. 2: the spec or the command is not valid. 130: interrupted.
"""

from __future__ import annotations

import os
import sys
from types import TracebackType

from tfqat.errors import TfqatError

FAILED, INVALID, INTERRUPTED = 1, 2, 130


def main() -> None:
    """Runs `tfqat` with the arguments of the process."""
    if "--debug" not in sys.argv:
        sys.excepthook = _unexpected
    try:
        _run()
    except KeyboardInterrupt:
        _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        _close_quietly()
        sys.exit(FAILED)
    except (TfqatError, OSError) as error:
        if "--debug" in sys.argv:
            raise
        _fail(f"error: {error}", _exit_code(error))


def _run() -> None:
    # Imported here, so that Ctrl-C while modules load is handled as well.
    from tfqat.cli.app import command

    try:
        command()(prog_name="tfqat")
    except SystemExit as end:
        sys.stdout.flush()
        if end.code == INTERRUPTED:
            raise KeyboardInterrupt from end
        raise


def _exit_code(error: Exception) -> int:
    from tfqat.cli.options import CommandError
    from tfqat.spec import SpecError

    return INVALID if isinstance(error, (SpecError, CommandError)) else FAILED


def _fail(message: str, code: int) -> None:
    print(f"tfqat: {message}", file=sys.stderr)
    sys.exit(code)


def _unexpected(kind: type[BaseException], error: BaseException, _: TracebackType | None) -> None:
    """What no part of tfqat foresaw, in one message. The interpreter then exits with 1."""
    text = str(error) or "no message"
    print(f"tfqat: error: {kind.__name__}: {text}\nRun again with --debug for the traceback.", file=sys.stderr)


def _close_quietly() -> None:
    """The reader of our output has gone (`tfqat --help | head -1`): nothing more can be said there, and need not be."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
