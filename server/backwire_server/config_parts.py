"""The parts that the settings of a server fall into."""

from dataclasses import dataclass

from backwire_server.machine import usable_cores


@dataclass(frozen=True, slots=True)
class Capacity:
    """What is taken on at a time.

    Attributes:
        max_concurrent_calls: The most unary calls in progress.
        max_concurrent_streams: The most streams in progress, Pipelines not counted.
        max_concurrent_pipelines: The most Pipelines open.
        max_concurrent_lookups: The most calls in progress that compute nothing, such as GetSession.
        max_concurrent_computations: How many sessions compute at a time; None for as many as there are cores.
        max_helpers: The most processes that compute parts of batches for sessions; None for one less than cores.
        max_helper_pass_bytes: The most bytes that each of these keeps of passes for their Backward.
        peer_helpers: The most parts of batches that other servers which share the directory compute at a time.
        max_request_bytes: The most bytes of requests in progress.
        max_calls_per_second: The most calls, and requests on Pipelines, that begin in a second; None for no limit.
        max_connections: The most connections of clients to a process.
        keepalive: After how many seconds of silence a connection is asked for a sign of life.
        patience: How many seconds a call may wait for its client when others want its place.
    """

    max_concurrent_calls: int = 64
    max_concurrent_streams: int = 16
    max_concurrent_pipelines: int = 128
    max_concurrent_lookups: int = 16
    max_concurrent_computations: int | None = None
    max_helpers: int | None = None
    max_helper_pass_bytes: int = 256 << 20
    peer_helpers: int = 0
    max_request_bytes: int = 1 << 30
    max_calls_per_second: int | None = None
    max_connections: int = 4_096
    keepalive: float = 60.0
    patience: float = 10.0

    @property
    def max_concurrent(self) -> int:
        """The most calls of all kinds in progress."""
        return (
            self.max_concurrent_calls
            + self.max_concurrent_streams
            + self.max_concurrent_pipelines
            + self.max_concurrent_lookups
        )

    @property
    def most_waiting(self) -> int:
        """How many calls may wait for another server, so that half of the places of each kind are left for others."""
        calls, streams = self.max_concurrent_calls, self.max_concurrent_streams
        return min(calls, streams, self.max_concurrent_pipelines, self.max_concurrent_lookups) // 2

    @property
    def computations(self) -> int:
        """How many sessions compute at a time."""
        return self.max_concurrent_computations or usable_cores()


@dataclass(frozen=True, slots=True)
class Access:
    """Who may come in. All are paths of files.

    Attributes:
        tls_certificate: The server's certificate and those above it; None for traffic that is not encrypted.
        tls_key: The key of that certificate.
        client_ca: The authorities that the certificates of clients must come from; None asks clients for none.
        peer_ca: The authorities that those of other servers must come from; None for those of the system.
        tokens: The tokens that let clients in; None lets everybody in.
    """

    tls_certificate: str | None = None
    tls_key: str | None = None
    client_ca: str | None = None
    peer_ca: str | None = None
    tokens: str | None = None


@dataclass(frozen=True, slots=True)
class Keeping:
    """How sessions are kept on disk.

    Attributes:
        data_dir: Where; None for a server that keeps them in memory alone.
        durability: What acknowledged mutations of a session outlive that asks for nothing else, one of DURABILITIES.
        max_disk_bytes: The most bytes of files that all sessions have together; None for no limit.
        checkpoint_bytes: How many bytes of journal lead to another checkpoint.
        checkpoint_url: The object store that checkpoints are copied to; None for none.
        shared: Whether other servers use the same directory, of whom each may serve any session.
        lease: After how many seconds without a sign of life others take the sessions of a server over.
        advertise: Where clients reach this server itself; None for the address it listens on.
        lanes: Whether calls are passed on between servers by lanes, too, and not by gRPC alone.
        lane_port: The port on which others open lanes; 0 for a free one.
    """

    data_dir: str | None = None
    durability: str = "journal"
    max_disk_bytes: int | None = None
    checkpoint_bytes: int = 128 << 20
    checkpoint_url: str | None = None
    shared: bool = False
    lease: float = 1.0
    advertise: str | None = None
    lanes: bool = True
    lane_port: int = 0


@dataclass(frozen=True, slots=True)
class Cluster:
    """The workers of a server that Ray has run on its nodes.

    Attributes:
        ray: The cluster: `auto`, `local`, or the `HOST:PORT` of its head; None for a server without Ray.
        min_workers: The fewest workers.
        max_workers: The most workers; None for as many as the nodes have room for.
        worker_cpus: The cores that are set aside for each.
        worker_gpus: The GPUs that are set aside for each.
        worker_memory: The bytes of memory that are set aside for each, and that its sessions may hold; None for none.
    """

    ray: str | None = None
    min_workers: int = 1
    max_workers: int | None = None
    worker_cpus: int = 1
    worker_gpus: int = 0
    worker_memory: int | None = None
