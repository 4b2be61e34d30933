"""TfqatError: a mistake that the user can mend; the command line prints its message without a traceback."""

from __future__ import annotations


class TfqatError(ValueError):
    """What happened, what was expected, what was received, and how to mend it."""
