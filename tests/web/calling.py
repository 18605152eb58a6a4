"""Calls the page as a browser does, without one."""

import contextlib
import json
import time
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any
from urllib.parse import urlsplit

import pytest

SECONDS = 30.0
PATIENCE = 600  # attempts
Answer = tuple[int, Any]


class Caller:
    """Asks a page as a program does."""

    def __init__(self, address: str) -> None:
        url = urlsplit(address)
        self.host, self.port = str(url.hostname), int(url.port or 0)
        self.key = url.fragment.removeprefix("key=")

    def send(self, method: str, path: str, **headers: str) -> HTTPResponse:
        connection = HTTPConnection(self.host, self.port, timeout=SECONDS)
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        response.body = response.read()  # type: ignore[attr-defined]
        connection.close()
        return response

    def get(self, path: str, **headers: str) -> Answer:
        response = self.send("GET", path, **{"Authorization": f"Bearer {self.key}", **headers})
        return response.status, json.loads(response.body)  # type: ignore[attr-defined]


def wait_until_answered(caller: Caller) -> None:
    """Asks until there is room for another browser, and time enough to answer it."""
    for _ in range(PATIENCE):
        with contextlib.suppress(OSError, HTTPException):
            assert caller.get("/api/status")[0] == 200
            return
        time.sleep(0.05)
    pytest.fail("nobody is answered again")
