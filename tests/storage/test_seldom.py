"""Of many warnings few are logged, and those tell of all."""

import time

import pytest

from backwire_server.storage.seldom import REST_SECONDS, Seldom


def test_one_warning_is_logged_at_a_time_and_tells_of_those_that_were_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    warnings = Seldom()
    for now in (0.0, 0.25, REST_SECONDS - 0.25, REST_SECONDS, 2 * REST_SECONDS):
        warnings.warn("the disk at %s is full at %g s", "/d", now)
    assert caplog.messages == [
        "the disk at /d is full at 0 s",
        "the disk at /d is full at 60 s (and 2 others since the last such line)",
        "the disk at /d is full at 120 s",
    ]
