"""Files: the report of an analysis as ``report.json``, whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tfqat.analysis.report import Analysis
from tfqat.core.files import folder_on_success, write_text

JSON = "report.json"
FILES = (JSON,)


def write_analysis(found: Analysis, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
    """Writes the report into ``folder``; returns the files. Of the keys see ``Analysis``.

    Raises:
        OSError: the folder cannot be written.
    """
    with folder_on_success(folder) as temporary:
        write_text(temporary / JSON, json.dumps(found.to_dict(), indent=1) + "\n")
    return (Path(folder) / JSON,)
