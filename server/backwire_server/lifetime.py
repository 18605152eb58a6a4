"""When a process ends: at signals, or with the process that started it."""

import asyncio
import contextlib
import os
import signal
import threading

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def end_on_signal(stop: threading.Event) -> None:
    """Sets the event at the first SIGTERM or SIGINT; a second one ends the process at once.

    To be called before any other thread is started: all of them inherit that these signals are blocked, and one thread
    waits for them. A handler would not do: the system may give a signal to any thread, and Python would not run the
    handler before the main thread, asleep until `stop` is set, woke up for another reason.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    threading.Thread(target=_await_signals, args=(stop,), name="backwire-signals", daemon=True).start()


def end_with_input(stop: threading.Event) -> None:
    """Sets the event when standard input reaches its end."""
    threading.Thread(target=_await_end, args=(stop,), name="backwire-parent", daemon=True).start()


def in_loop(stop: threading.Event) -> asyncio.Event:
    """Returns an event of the loop that runs, which is set once `stop` is."""
    loop, ending = asyncio.get_running_loop(), asyncio.Event()

    def pass_on() -> None:
        stop.wait()
        loop.call_soon_threadsafe(ending.set)

    threading.Thread(target=pass_on, name="backwire-end", daemon=True).start()
    return ending


def _await_signals(stop: threading.Event) -> None:
    signal.sigwait(SIGNALS)
    stop.set()
    os._exit(128 + signal.sigwait(SIGNALS))


def _await_end(stop: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    stop.set()
