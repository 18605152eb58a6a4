"""The settings that limit what clients may ask for, and how much is done at a time."""

from collections.abc import Mapping, Sequence

from backwire_server.config_values import (
    Option,
    read_bytes,
    read_count,
    read_count_from_zero,
    read_optional_seconds,
    read_seconds,
)

LIMITS: Mapping[str, Sequence[Option]] = {
    "limits on what clients may ask for": [
        Option("max_message_bytes", read_bytes, "BYTES", "the largest message that is accepted and sent"),
        Option(
            "max_pipeline_bytes", read_bytes, "BYTES", "the most bytes of requests that a Pipeline holds unanswered"
        ),
        Option("max_graph_nodes", read_count, "N", "the most nodes of a graph"),
        Option("max_parameters", read_count, "N", "the most parameters of a graph"),
        Option("max_parameter_bytes", read_bytes, "BYTES", "the most bytes of parameters and constants in a graph"),
        Option(
            "max_attribute_bytes", read_bytes, "BYTES", "the most bytes of attributes of the nodes of a graph together"
        ),
        Option("max_tensor_rank", read_count, "N", "the most dimensions of a tensor; none may have more than 32"),
        Option("max_tensor_bytes", read_bytes, "BYTES", "the most bytes of a tensor"),
        Option(
            "max_compile_time",
            read_seconds,
            "TIME",
            "how long the check of a graph, and what is compiled for a shape, may take",
        ),
        Option(
            "max_call_flops",
            read_count,
            "N",
            "the most floating-point operations of a pass with its gradient",
            unset="none",
        ),
        Option("max_call_bytes", read_bytes, "BYTES", "the most bytes that a pass, or its gradient, needs to compute"),
        Option("max_passes", read_count, "N", "the most passes that a session keeps; the oldest expires"),
        Option("max_pass_bytes", read_bytes, "BYTES", "the most bytes that the passes of a session hold"),
        Option("pass_ttl", read_seconds, "TIME", "how long a pass is kept"),
        Option("max_sessions", read_count, "N", "the most sessions at a time"),
        Option("max_total_bytes", read_bytes, "BYTES", "the most bytes that all sessions hold together"),
        Option(
            "idle_ttl",
            read_optional_seconds,
            "TIME",
            "how long a session that is not durable is kept after its last use, or never",
        ),
    ],
    "limits on what is done at a time": [
        Option("max_concurrent_calls", read_count, "N", "the most unary calls in progress"),
        Option("max_concurrent_streams", read_count, "N", "the most streams in progress, Pipelines not counted"),
        Option("max_concurrent_pipelines", read_count, "N", "the most Pipelines open"),
        Option(
            "max_concurrent_lookups",
            read_count,
            "N",
            "the most calls in progress that only look",
        ),
        Option(
            "max_concurrent_computations",
            read_count,
            "N",
            "how many sessions compute at a time; others wait, those of each tenant for an equal share of the time",
            unset="one per core",
        ),
        Option(
            "max_helpers",
            read_count_from_zero,
            "N",
            "the most processes that each worker starts to compute parts of batches (`data_parallel`); 0 for none",
            unset="one less than cores",
        ),
        Option(
            "max_helper_pass_bytes",
            read_bytes,
            "BYTES",
            "the most bytes that each of these keeps of passes; what it does not keep is computed again for Backward",
        ),
        Option(
            "peer_helpers",
            read_count_from_zero,
            "N",
            "the most parts of batches that are given at a time to other servers which share the directory, whose "
            "helpers then compute them, as those here do for them; 0 for none, either way",
        ),
        Option("max_request_bytes", read_bytes, "BYTES", "the most bytes of requests in progress"),
        Option(
            "max_calls_per_second",
            read_count,
            "N",
            "the most calls, and requests on Pipelines, that begin in a second",
            unset="none",
        ),
    ],
    "limits on connections and slow clients": [
        Option("max_connections", read_count, "N", "the most connections of clients to a process"),
        Option(
            "keepalive",
            read_seconds,
            "TIME",
            "after how much silence a connection is asked for a sign of life, which may take as long, up to 20 s",
        ),
        Option(
            "patience",
            read_seconds,
            "TIME",
            "how long a call may wait for its client to send, or to take the answer, when others want its place",
        ),
    ],
    "limits of each tenant, unless the tokens file has others": [
        Option("tenant_max_sessions", read_count, "N", "the most sessions of a tenant at a time", unset="none"),
        Option("tenant_max_bytes", read_bytes, "BYTES", "the bytes of its sessions together", unset="none"),
        Option("tenant_max_calls", read_count, "N", "its calls of all kinds in progress", unset="none"),
        Option(
            "tenant_calls_per_second",
            read_count,
            "N",
            "its calls and Pipeline requests in a second",
            unset="none",
        ),
        Option("tenant_bytes_per_second", read_bytes, "BYTES", "the bytes of its requests in a second", unset="none"),
        Option(
            "tenant_flops_per_second",
            read_count,
            "N",
            "its floating-point operations in a second",
            unset="none",
        ),
    ],
}
"""The settings that are limits, by the heading that the help has them under."""
