"""Files: the report of an analysis as ``report.json`` and ``report.html``, both whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tfqat.analysis.page import page_of
from tfqat.analysis.report import Analysis
from tfqat.core.files import folder_on_success, write_text

JSON, HTML = FILES = "report.json", "report.html"


def write_analysis(found: Analysis, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
    """Writes the report into ``folder``; returns the files. Of the keys see ``Analysis``.

    Raises:
        OSError: the folder cannot be written.
    """
    document = found.to_dict()
    text = json.dumps(document, indent=1, allow_nan=False) + "\n"
    page = page_of(document, text)
    with folder_on_success(folder) as temporary:
        write_text(temporary / JSON, text)
        write_text(temporary / HTML, page)
    return tuple(Path(folder) / name for name in FILES)
