"""What a worker process is told when it is started, and its share of what the server has as a whole."""

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from backwire_server.config import PARTS, Config
from backwire_server.config_parts import Access, Capacity, Keeping
from backwire_server.machine import Tuning
from backwire_server.sessions.limits import Limits, TenantLimits


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker is.

    Attributes:
        listen: Where it listens for the process that has the server's address.
        target: Where that process reaches it.
        address: Where clients do, as its sessions tell them.
        encrypted: Where it listens for clients besides, encrypted as the server's address is; empty for nowhere.
    """

    listen: str
    target: str
    address: str
    encrypted: str = ""


@dataclass(frozen=True, slots=True)
class Assignment:
    """Where a worker listens, and what its sessions tell of that, as in Place; the server's settings that concern it.

    `index` is its number, from 0, among `count` workers; `replica` the name of its server, empty for one alone.
    """

    listen: str
    address: str
    encrypted: str
    tag: str
    index: int
    count: int
    replica: str
    grace: float
    log_level: str
    access_log: bool
    tracing: bool
    tuning: Tuning
    keeping: Keeping
    access: Access
    limits: Limits
    tenants: TenantLimits
    capacity: Capacity

    def to_json(self) -> str:
        """Returns one line, from which `from_json` makes an equal one."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> "Assignment":
        """Returns what `to_json` wrote."""
        data: dict[str, Any] = json.loads(line)
        return cls(**{name: PARTS[name](**value) if name in PARTS else value for name, value in data.items()})


def assign(settings: Config, place: Place, tag: str, index: int) -> Assignment:
    """Returns the assignment of one of the server's workers, counted from 0.

    It knows callers by their tokens; what encrypts is before it, in the process that has the server's address, unless
    clients reach it past that.
    Sessions and bytes are shared out, so that together they are what the server may have; a message always fits.
    """
    limits, capacity, count = settings.limits, settings.capacity, settings.worker_count
    keeping, disk = settings.keeping, settings.keeping.max_disk_bytes
    return Assignment(
        listen=place.listen,
        address=place.address,
        encrypted=place.encrypted,
        tag=tag,
        index=index,
        count=count,
        replica=settings.replica or "",
        grace=settings.grace,
        log_level=settings.log_level,
        access_log=settings.access_log,
        tracing=settings.tracing,
        tuning=settings.tuning,
        access=settings.access if place.encrypted else Access(tokens=settings.access.tokens),
        keeping=replace(keeping, max_disk_bytes=None if disk is None else _share(disk, index, count)),
        limits=replace(
            limits,
            max_sessions=_share(limits.max_sessions, index, count),
            max_total_bytes=_share(limits.max_total_bytes, index, count),
            max_awake_sessions=_share(limits.max_awake_sessions, index, count),
        ),
        tenants=TenantLimits(**{name: _part(value, index, count) for name, value in asdict(settings.tenants).items()}),
        capacity=replace(
            capacity,
            max_concurrent_computations=_share(capacity.computations, index, count),
            max_calls_per_second=_part(capacity.max_calls_per_second, index, count),
            max_request_bytes=max(_share(capacity.max_request_bytes, index, count), limits.max_message_bytes),
        ),
    )


def of_all(settings: Config) -> Capacity:
    """Returns what all workers together take on at a time."""
    capacity, count = settings.capacity, settings.worker_count
    return replace(
        capacity,
        max_concurrent_calls=capacity.max_concurrent_calls * count,
        max_concurrent_streams=capacity.max_concurrent_streams * count,
        max_concurrent_pipelines=capacity.max_concurrent_pipelines * count,
        max_concurrent_lookups=capacity.max_concurrent_lookups * count,
    )


def _part(total: int | None, index: int, count: int) -> int | None:
    return None if total is None else _share(total, index, count)


def _share(total: int, index: int, count: int) -> int:
    return max(1, total // count + (index < total % count))
