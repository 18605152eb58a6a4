"""The limits of what clients may ask for."""

from collections.abc import Callable
from dataclasses import dataclass

MiB = 1 << 20
GiB = 1 << 30


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server holds its clients to. Bytes and counts are above zero, times are in seconds.

    Attributes:
        max_message_bytes: The largest message that is accepted and sent.
        max_pipeline_bytes: The bytes of requests that a Pipeline stream holds unanswered before it stops reading.
        max_graph_nodes: The most nodes of a graph; it may have as many inputs, constants and outputs.
        max_parameters: The most parameters of a graph.
        max_parameter_bytes: The most bytes of parameters and constants in a graph.
        max_attribute_bytes: The most bytes of attributes that the nodes of a graph have together.
        max_tensor_rank: The most dimensions of a tensor; no limit allows more than the contract does.
        max_tensor_bytes: The most bytes of a tensor.
        max_compile_time: How long anything of a graph that is compiled may take: its check, a pass, a backward.
        max_call_flops: The most floating-point operations of a pass and its gradient; None for no limit.
        max_call_bytes: The most bytes that a pass, or its gradient, needs while it is computed.
        max_passes: The most passes that a session keeps; when another comes, the oldest expires.
        max_pass_bytes: The most bytes that the passes of a session hold together, old parameter values included.
        pass_ttl: How long a pass is kept.
        max_sessions: The most sessions at a time.
        max_total_bytes: The most bytes that all sessions hold together: state, passes and retained answers.
        idle_ttl: How long a session that is kept in memory alone is kept after its last use; None for ever.
        hibernate_after: How long a durable session stays in memory after its last use.
        max_awake_sessions: The most durable sessions that stay in memory; the longest unused are written out first.
    """

    max_message_bytes: int = 256 * MiB
    max_pipeline_bytes: int = 64 * MiB
    max_graph_nodes: int = 50_000
    max_parameters: int = 10_000
    max_parameter_bytes: int = 4 * GiB
    max_attribute_bytes: int = 64 * MiB
    max_tensor_rank: int = 32
    max_tensor_bytes: int = 4 * GiB
    max_compile_time: float = 30.0
    max_call_flops: int | None = None
    max_call_bytes: int = 4 * GiB
    max_passes: int = 64
    max_pass_bytes: int = GiB
    pass_ttl: float = 600.0
    max_sessions: int = 1_000
    max_total_bytes: int = 16 * GiB
    idle_ttl: float | None = 86_400.0
    hibernate_after: float = 300.0
    max_awake_sessions: int = 1_000


@dataclass(frozen=True, slots=True)
class TenantLimits:
    """What a server holds each of its tenants to; None for no limit but those of all together.

    Rates are for a second; what was not used of one may be used in the next.

    Attributes:
        tenant_max_sessions: The most sessions at a time.
        tenant_max_bytes: The most bytes that its sessions hold together.
        tenant_max_calls: The most calls in progress, streams and Pipelines counted as calls.
        tenant_calls_per_second: The calls, and requests on Pipelines.
        tenant_bytes_per_second: The bytes of requests.
        tenant_flops_per_second: The floating-point operations of what is computed.
    """

    tenant_max_sessions: int | None = None
    tenant_max_bytes: int | None = None
    tenant_max_calls: int | None = None
    tenant_calls_per_second: int | None = None
    tenant_bytes_per_second: int | None = None
    tenant_flops_per_second: int | None = None


UNLIMITED = TenantLimits()

LimitsOf = Callable[[str], TenantLimits]
"""Tells what a tenant is held to."""


def unlimited(_: str) -> TenantLimits:
    """Holds a tenant to nothing."""
    return UNLIMITED
