"""JSON text: what a file holds, as a JSON document."""

from __future__ import annotations

import json
from typing import Any

from tfqat.errors import TfqatError

_MARK = "\N{ZERO WIDTH NO-BREAK SPACE}"  # the byte order mark with which some editors begin a file


class JsonTextError(TfqatError):
    """Text that is no whole JSON document."""


def document_of(data: str | bytes) -> Any:
    """The document; a byte order mark before it is passed over.

    Raises:
        JsonTextError: not text, cut off, nested too deeply, or a number of thousands of digits.
    """
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
        return json.loads(text.removeprefix(_MARK))
    except UnicodeDecodeError as error:
        raise JsonTextError(f"not text in UTF-8 (byte {error.start}), so no JSON.") from error
    except json.JSONDecodeError as error:
        raise JsonTextError(f"not whole JSON (line {error.lineno}: {error.msg}); export it again.") from error
    except RecursionError as error:
        raise JsonTextError("nested too deeply to be read, deeper than any file of this kind is.") from error
    except ValueError as error:
        raise JsonTextError(f"JSON with a number that cannot be read ({error}).") from error
