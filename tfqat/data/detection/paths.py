"""Paths: the file names that annotations give, which are not trusted."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath


def inside(folder: Path, name: str) -> Path | None:
    """``folder / name``; None where ``name`` is absolute, climbs with ``..`` or names nothing.

    Links within the folder are followed: they are the user's own.
    """
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or "\0" in name or ".." in parts or parts[0] == "/" or re.match(r"[A-Za-z]:", name):
        return None
    return folder.joinpath(*parts)
