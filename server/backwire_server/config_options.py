"""The settings of a server: their names, how their texts are read, and what they mean; limits are beside."""

from collections.abc import Mapping, Sequence

from backwire_server.config_limits import LIMITS
from backwire_server.config_values import (
    DURABILITIES,
    EXECUTORS,
    LOG_LEVELS,
    PRECISIONS,
    Option,
    read_address,
    read_bytes,
    read_cluster,
    read_count,
    read_count_from_zero,
    read_directory,
    read_durability,
    read_executor,
    read_file,
    read_flag,
    read_host_port,
    read_log_level,
    read_port,
    read_port_or_any,
    read_precision,
    read_replica,
    read_seconds,
    read_url,
)

OPTIONS: Mapping[str, Sequence[Option]] = {
    "the server": [
        Option("listen", read_address, "ADDRESS", "HOST:PORT or unix:PATH to serve on; port 0 finds a free one"),
        Option("allow_plaintext", read_flag, "", "serve without encryption where other machines can connect"),
        Option("grace", read_seconds, "TIME", "how long calls in progress may go on after a signal to end"),
        Option("exit_with_parent", read_flag, "", "end when standard input reaches its end"),
        Option("log_level", read_log_level, "LEVEL", f"from which level on to log: {', '.join(LOG_LEVELS)}"),
        Option("access_log", read_flag, "", "log every call"),
        Option(
            "metrics_listen",
            read_host_port,
            "HOST:PORT",
            "serve metrics for Prometheus on http://HOST:PORT/metrics, or https where the server is encrypted",
            unset="none",
        ),
        Option("tracing", read_flag, "", "export traces by OpenTelemetry, as its variables OTEL_* say"),
        Option("reflection", read_flag, "", "let clients read the contract from the server (gRPC reflection)"),
        Option(
            "channelz",
            read_flag,
            "",
            "let admins see connections of the server (gRPC channelz), and all without tokens",
        ),
        Option(
            "replica",
            read_replica,
            "NAME",
            "the name of this server among several behind one address, which the ids of its sessions tell",
            unset="none: it is alone",
        ),
    ],
    "who may come in": [
        Option(
            "tls_certificate",
            read_file,
            "FILE",
            "the server's certificate and those above it, PEM; it is read again when it changes",
            unset="none: the traffic is not encrypted",
        ),
        Option("tls_key", read_file, "FILE", "the key of that certificate, PEM", unset="none"),
        Option(
            "client_ca",
            read_file,
            "FILE",
            "let in only clients with a certificate of these authorities, PEM",
            unset="none: clients need no certificate",
        ),
        Option(
            "peer_ca",
            read_file,
            "FILE",
            "the authorities of the certificates of other servers that share the directory, PEM",
            unset="those of the system",
        ),
        Option(
            "tokens",
            read_file,
            "FILE",
            "let in only calls with a token of this file, which `backwire token` makes; it is read again when it "
            "changes",
            unset="none: everybody is let in",
        ),
    ],
    "processes and the machine": [
        Option(
            "workers",
            read_count,
            "N",
            "how many processes share the sessions, behind the one address; 1 serves from a single process. Each takes "
            "an equal share of --max-sessions, --max-total-bytes and --max-request-bytes; other limits hold in each",
            unset="one per core",
        ),
        Option(
            "worker_port",
            read_port,
            "PORT",
            "the first of as many ports as there are workers, on which clients on other machines reach them directly, "
            "encrypted where the server's address is",
            unset="none: only clients on this machine do",
        ),
        Option(
            "compute_threads",
            read_count,
            "N",
            "the threads of numerical libraries in each process",
            unset="what OMP_NUM_THREADS and its like say, or 1",
        ),
        Option(
            "executor",
            read_executor,
            "NAME",
            f"what computes sessions that name none: {' or '.join(EXECUTORS)}, which takes the extra `jax`",
        ),
        Option(
            "precision",
            read_precision,
            "NAME",
            f"what sessions that name none compute products in: {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}",
        ),
        Option(
            "jax_devices",
            read_count,
            "N",
            "over how many devices of JAX each process splits the batches of its sessions that compute by it",
        ),
        Option(
            "group_sessions",
            read_flag,
            "",
            "compute steps together that wait, of sessions on JAX with the same graph that are kept in memory alone",
        ),
        Option("tune_blas", read_flag, "", "choose OpenBLAS kernels where OpenBLAS itself misjudges the CPU"),
        Option("tune_allocator", read_flag, "", "keep freed memory, up to 512MiB in each process, for large messages"),
    ],
    "workers on the nodes of a Ray cluster": [
        Option(
            "ray",
            read_cluster,
            "ADDRESS",
            "have Ray run the workers on the nodes of a cluster: HOST:PORT of its head, auto for the one that this "
            "node is in, or local for one that is this machine and ends with the server; takes --data-dir and the "
            "extra `ray`",
            unset="none: the workers are processes of this server",
        ),
        Option("min_workers", read_count, "N", "the fewest workers that Ray runs"),
        Option(
            "max_workers",
            read_count,
            "N",
            "the most workers that Ray runs",
            unset="as many as the nodes have cores, GPUs and memory for",
        ),
        Option("worker_cpus", read_count, "N", "the cores that Ray sets aside for each worker"),
        Option("worker_gpus", read_count_from_zero, "N", "the GPUs that Ray sets aside for each worker"),
        Option(
            "worker_memory",
            read_bytes,
            "BYTES",
            "the memory that Ray sets aside for each worker, and that its sessions may hold",
            unset="none: --max-total-bytes holds",
        ),
    ],
    "sessions on disk": [
        Option(
            "data_dir",
            read_directory,
            "DIR",
            "keep sessions in this directory, so that they outlive the process; one server at a time may use it, but "
            "for --shared",
            unset="none: sessions are kept in memory alone",
        ),
        Option(
            "durability",
            read_durability,
            "LEVEL",
            "what acknowledged changes outlive unless a session asks for another level: "
            f"{', '.join(DURABILITIES)}, for nothing, the process and the machine; takes --data-dir",
        ),
        Option(
            "max_disk_bytes", read_bytes, "BYTES", "the most bytes of files that sessions have together", unset="none"
        ),
        Option("checkpoint_bytes", read_bytes, "BYTES", "how much journal leads to another checkpoint of a session"),
        Option(
            "checkpoint_url",
            read_url,
            "URL",
            "copy checkpoints to an object store too, such as s3://bucket/path (fsspec), and begin with those there "
            "when --data-dir has no sessions",
            unset="none",
        ),
        Option(
            "shared",
            read_flag,
            "",
            "let other servers use --data-dir at the same time, of whom each may serve any session; takes --replica",
        ),
        Option(
            "lease",
            read_seconds,
            "TIME",
            "how long a server that shares the directory may give no sign of life before others take its sessions over",
        ),
        Option(
            "advertise",
            read_host_port,
            "HOST:PORT",
            "where clients reach this server itself among those that share the directory",
            unset="the address of --listen",
        ),
        Option(
            "lanes",
            read_flag,
            "",
            "pass calls on to servers that share the directory by connections beside gRPC, and let them do so",
        ),
        Option(
            "lane_port",
            read_port_or_any,
            "PORT",
            "the port on which others open such connections, at the host of --listen; 0 finds a free one",
        ),
        Option("hibernate_after", read_seconds, "TIME", "how long a session stays in memory after its last use"),
        Option("max_awake_sessions", read_count, "N", "the most sessions in memory; the longest unused go first"),
    ],
    **LIMITS,
}
"""All settings, by the heading that the help has them under."""
