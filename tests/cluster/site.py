"""Replicas that share a data directory, behind HAProxy that knows nothing of sessions."""

import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.deploy.balancers import LISTEN, NAMES
from tests.deploy.files import DOCKER, adapted
from tests.deploy.proxies import IMPATIENT, Haproxy, checks, running, tool
from tests.ports import unused_port
from tests.trainees import Replica, batches, create

import backwire as bw
from backwire._wire._channel import open_channel
from backwire._wire._transport import Transport

LEASE_SECONDS = 1.0
STEADY_SECONDS = 60.0
"""The lease of a replica that nobody takes for dead which only waits for a processor, or for its disk."""

PLAIN = "bind 0.0.0.0:443 ssl crt /etc/haproxy/backwire.pem alpn h2"
AFFINE = (
    "http-request set-var(txn.replica) req.hdr(backwire-session-id),field(2,~),field(1,.)",
    "use-server %[var(txn.replica)] if { var(txn.replica) -m found }",
    "option persist",
    "hash-type consistent",
)
"""What of the configuration for replicas with directories of their own sends calls to where a session is."""


class Balancer(Haproxy):
    """HAProxy that sends each call to the next replica that serves."""

    def __init__(self, directory: Path, backends: Sequence[str], port: int) -> None:
        self.program = tool("haproxy")
        self.path = directory / "haproxy.cfg"
        replacements = {PLAIN: f"bind 127.0.0.1:{port} proto h2"}
        replacements["balance hdr(backwire-request-id)"] = "balance roundrobin"
        replacements |= dict.fromkeys(AFFINE, "") | checks(IMPATIENT) | dict(zip(LISTEN, backends, strict=True))
        self.path.write_text(adapted(DOCKER / "haproxy-replicas.cfg", replacements))


@dataclass(frozen=True, slots=True)
class Site:
    """Replicas by their names, the directory that they share, and the address of the balancer before them."""

    replicas: Mapping[str, Replica]
    directory: Path
    target: str

    def owner(self, session_id: str) -> str:
        """Returns the replica that has a session open, or had when it ended; empty for none."""
        return owner_in(self.directory, session_id)


def owner_in(directory: Path, session_id: str) -> str:
    """As `Site.owner`, of a directory that replicas share."""
    (mark,) = (directory / "shared" / session_id).iterdir()
    return mark.name.split(".")[1]


@contextmanager
def serving(directory: Path, *, machines: bool = False, stalling: Collection[str] = NAMES) -> Iterator[Site]:
    """Has a site serve, whose replicas have trained already; with `machines`, each as if on a machine of its own.

    Those that are not `stalling` keep their sessions for STEADY_SECONDS without a sign, as long as their process lives.
    """
    data, replicas = directory / "data", dict[str, Replica]()
    for name in NAMES:
        lease = LEASE_SECONDS if name in stalling else STEADY_SECONDS
        flags = ("--replica", name, "--workers", "1", "--shared", "--lease", f"{lease}s")
        replicas[name] = Replica(data, *flags, within=_machine(directory, name) if machines else ())
    port = unused_port()
    with ExitStack() as stack:
        with ThreadPoolExecutor() as pool:
            for each in pool.map(Replica.__enter__, replicas.values()):
                stack.push(each)
            list(pool.map(warm, replicas.values()))
        balancer = Balancer(directory, [each.address for each in replicas.values()], port)
        stack.enter_context(running(balancer))
        yield Site(replicas, data, f"127.0.0.1:{port}")


def _machine(directory: Path, name: str) -> tuple[str, ...]:
    """Returns what runs the command that follows so that it sees a kernel with another name; needs root."""
    boot = directory / f"boot-{name}"
    boot.write_text(f"{uuid.uuid4()}\n")
    script = 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"'
    return "unshare", "--mount", "sh", "-c", script, str(boot)


def unfollowing(target: str) -> bw.Client:
    """Returns a client as other languages have it, which does not go to owners itself."""
    return bw.Client(Transport(open_channel(target, token=None, tls=None), token=None, timeout=None, retry=bw.Retry()))


def warm(replica: Replica) -> None:
    """Has a replica train once."""
    with bw.connect(replica.address) as client, create(client, 0) as session:
        session.train_step(next(batches(0)))
