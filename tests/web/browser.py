"""Drives headless Chromium through its debugging pipe: messages of JSON, each with a zero byte at its end."""

import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PROGRAM = shutil.which("chromium") or shutil.which("google-chrome")
PATIENCE = 60.0
PAUSE = 0.05
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"]

START = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(each), fcntl.F_DUPFD, 10) for each in sys.argv[1:3]]
for place, end in enumerate(ends, 3):
    os.dup2(end, place)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Becomes Chromium, which reads from file 3 and writes to file 4."""


class Browser:
    """A browser with one page. A context manager, which ends the browser.

    Attributes:
        complaints: What the page was refused, threw or wrote to its console.
    """

    def __init__(self, folder: Path) -> None:
        """Starts it with a profile of its own in a folder."""
        there, self._write = os.pipe()
        self._read, here = os.pipe()
        arguments = [*FLAGS, f"--user-data-dir={folder}", "--remote-debugging-pipe", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", START, str(there), str(here), str(PROGRAM), *arguments],
            pass_fds=(there, here),
            stderr=subprocess.DEVNULL,
        )
        os.close(there)
        os.close(here)
        self.complaints: list[str] = []
        self._received = b""
        self._sent = 0
        self._page = ""
        page = next(each for each in self._call("Target.getTargets")["targetInfos"] if each["type"] == "page")
        self._page = self._call("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def open(self, url: str) -> None:
        """Opens a page."""
        self._call("Page.navigate", url="about:blank")  # or a new fragment would be no new page
        self._call("Page.navigate", url=url)

    def leave(self) -> list[str]:
        """Leaves the page, which asks again and again; returns all that it complained of, and forgets that."""
        self._call("Page.navigate", url="about:blank")
        self.run("1")  # takes in what it said meanwhile
        complaints, self.complaints = self.complaints, []
        return complaints

    def run(self, script: str) -> Any:
        """Returns the value of an expression in the page; the page may not be there yet."""
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def text(self, selector: str) -> str:
        """Returns the text of the first element, empty while there is none."""
        return str(self.run(f"document.querySelector({json.dumps(selector)})?.textContent ?? ''"))

    def count(self, selector: str) -> int:
        """Returns how many elements there are."""
        return int(self.run(f"document.querySelectorAll({json.dumps(selector)}).length"))

    def click(self, selector: str) -> None:
        """Clicks on the first element."""
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def wait(self, script: str) -> Any:
        """Returns the value of an expression as soon as it is true."""
        end = time.monotonic() + PATIENCE
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"{script} stays false in:\n{self.text('body')}\n{self.complaints}"
            time.sleep(PAUSE)
        return value

    def wait_for_text(self, selector: str, part: str) -> str:
        """Returns the text of the first element as soon as it has a part."""
        text = f"(document.querySelector({json.dumps(selector)})?.textContent ?? '')"
        return str(self.wait(f"{text}.includes({json.dumps(part)}) && {text}"))

    def wait_for_complaint(self, part: str) -> None:
        """Returns as soon as the page was refused something, or threw or wrote something, that has a part."""
        end = time.monotonic() + PATIENCE
        while not any(part in each for each in self.complaints):
            assert time.monotonic() < end, f"{part!r} is not in {self.complaints}"
            self.run("1")
            time.sleep(PAUSE)

    def _call(self, method: str, **parameters: Any) -> Any:
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": parameters}
        if self._page:
            message["sessionId"] = self._page
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._sent:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            if answer.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
                self.complaints.append(json.dumps(answer["params"]))

    def _next(self) -> Any:
        while b"\0" not in self._received:
            assert select.select([self._read], [], [], PATIENCE)[0], "Chromium does not answer"
            piece = os.read(self._read, 1 << 16)
            assert piece, "Chromium has ended"
            self._received += piece
        message, _, self._received = self._received.partition(b"\0")
        return json.loads(message)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._write)  # at the end of the pipe it ends
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._read)
