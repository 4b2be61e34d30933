"""Reason: what Keras says last in an error; it puts the whole config of everything around it before that."""

from __future__ import annotations

import re

_LAST = "Exception encountered: "
_OBJECT = r"deserializing class '(\w+)' using config=\{'name': '([^']*)'"


def last_said(error: BaseException) -> str:
    """The end of the error's message."""
    text = str(error).split(_LAST)[-1].strip()
    return f"it lacks {text}" if isinstance(error, KeyError) else text


def reason(error: BaseException) -> str:
    """The end of the error's message, and the layer that it is of."""
    found = re.findall(_OBJECT, str(error).rpartition(_LAST)[0])
    return (f"layer {found[-1][1]!r} ({found[-1][0]}): " if found else "") + last_said(error)
