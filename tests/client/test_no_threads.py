"""Where no thread can be started, what needs one is refused, and a client is whole all the same."""

import _thread
import threading

import numpy as np
import pytest

import backwire as bw

X = {"x": np.ones((1, 2), np.float32)}


def test_a_request_is_refused_where_no_thread_can_be_started_and_those_after_it_are_answered(
    session: bw.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with session.pipeline() as pipe:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", fails)
            with pytest.raises(RuntimeError, match="new thread"):
                pipe.train_step(X)
        assert pipe.train_step(X).result().step == 1


def test_a_client_is_whole_after_a_stream_for_which_no_thread_could_be_started(
    session: bw.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def fails(thread: threading.Thread) -> None:
        if thread.name != "backwire-pipeline":
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fails)
        patch.setattr(_thread, "start_new_thread", lambda *_: fails(threading.Thread()))
        with session.pipeline() as pipe, pytest.raises(bw.ServerError, match="new thread"):
            pipe.train_step(X).result()
        with pytest.raises(RuntimeError, match="new thread"):
            session.parameters()
    with session.pipeline() as pipe:
        assert pipe.train_step(X).result().step == 1
