"""The ways of a gateway to its workers: who is given calls, and whose calls go on."""

import asyncio
from dataclasses import replace

import pytest

from backwire_server.cluster.load import Load
from backwire_server.cluster.routes import Routes
from backwire_server.config_parts import Access
from backwire_server.sessions.errors import NoWorker

A, B = (Load(name, f"127.0.0.1:{port}") for name, port in (("a", 1), ("b", 2)))


def test_a_worker_that_takes_no_new_calls_keeps_those_in_progress_until_it_is_gone() -> None:
    async def see() -> None:
        routes = Routes(Access())
        routes.update([A])
        route = routes.next()
        routes.update([replace(A, takes_calls=False)])
        assert not route.ended.is_set()
        for choose in (routes.next, routes.for_new):
            with pytest.raises(NoWorker):
                choose()
        routes.update([B])
        assert route.ended.is_set()
        await routes.close()

    asyncio.run(see())


def test_new_sessions_count_for_their_worker_until_it_tells_another_load() -> None:
    async def see() -> None:
        routes = Routes(Access())
        routes.update([A, B])
        chosen = [routes.for_new().load.worker]
        routes.update([A, B])  # told again, but not asked again
        chosen += [routes.for_new().load.worker for _ in range(2)]
        assert chosen == ["a", "b", "a"]
        routes.update([replace(A, awake=2), replace(B, awake=1)])
        assert routes.for_new().load.worker == "b"
        await routes.close()

    asyncio.run(see())
