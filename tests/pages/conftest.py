"""Browser: a page opened by a headless Chromium, spoken to by its DevTools protocol over a pipe."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
# Its file descriptors for commands in, and answers out.
IN, OUT = 3, 4


class Browser:
    """Sends commands and keeps what happens meanwhile in ``events``."""

    def __init__(self, commands: int, answers: int) -> None:
        self.commands, self.answers = commands, answers
        self.held, self.number, self.events = b"", 0, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = None
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    session: str | None = None

    def open(self, path: Path, width: int, dark: bool) -> None:
        """Loads a file, with the network's and the console's events from its beginning."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.events.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        while not self.seen("Page.loadEventFired"):
            self.events.append(self._receive())

    def call(self, method: str, **parameters: Any) -> Any:
        """The result of a command."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != self.number:
            self.events.append(answer)
        return answer["result"]

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression in the page."""
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def seen(self, method: str) -> list[Any]:
        """What happened of one kind since the page was opened."""
        return [event["params"] for event in self.events if event.get("method") == method]

    def _receive(self) -> Any:
        while b"\0" not in self.held:
            part = os.read(self.answers, 1 << 20)
            if not part:
                raise EOFError("the browser has ended")
            self.held += part
        message, self.held = self.held.split(b"\0", 1)
        return json.loads(message)


@pytest.fixture(scope="session")
def browser():
    """A Browser; tests that ask for it are skipped where there is none."""
    if PROGRAM is None:
        pytest.skip("no Chromium is installed to open the pages with")
    command_read, command_write = os.pipe()
    answer_read, answer_write = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # The shell puts the pipes where Chromium looks for them, whatever their numbers are here.
        options = "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --remote-debugging-pipe"
        line = f'exec "$0" {options} --user-data-dir="$1" about:blank {IN}<&{command_read} {OUT}>&{answer_write}'
        process = subprocess.Popen(
            ["bash", "-c", line, PROGRAM, profile],
            pass_fds=(command_read, answer_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(command_read)
        os.close(answer_write)
        try:
            yield Browser(command_write, answer_read)
        finally:
            process.kill()
            process.wait()
            os.close(command_write)
            os.close(answer_read)
