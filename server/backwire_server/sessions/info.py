"""What a session tells of itself."""

import base64
import hmac
import re
import secrets
import zlib
from dataclasses import dataclass

from backwire_server.engine.graph import DType, Input, Parameter
from backwire_server.engine.narrow import SINGLE
from backwire_server.optim import Optimizer
from backwire_server.sessions.caller import DEFAULT_TENANT, suffix_of
from backwire_server.sessions.calls import LeaseCall
from backwire_server.sessions.executors import Executor
from backwire_server.sessions.keeping.durable import Durability
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.replicas import tag_of

DURABLE_PREFIX = "d_"
SLOTS = 4096
_SLOT_DIGITS = 3
_UNIQUE_BYTES = 18


@dataclass(frozen=True, slots=True)
class Home:
    """The process that keeps sessions, where there are several.

    The id of a durable session tells its slot, one of SLOTS. Each process has those slots whose number leaves its own
    `index` when divided by `count`, so that it finds its sessions again after a restart, with however many processes.

    Attributes:
        id_prefix: What the ids of sessions begin with that end with this process.
        address: Where clients may call it directly; empty for nowhere.
        index: The number of this process, from 0.
        count: How many there are.
        replica: The name of their server among several behind one address; empty for one that is alone.
    """

    id_prefix: str = "s_"
    address: str = ""
    index: int = 0
    count: int = 1
    replica: str = ""

    def new_id(self, *, durable: bool, request_id: str = "", parent: str = "", tenant: str = DEFAULT_TENANT) -> str:
        """Returns an id that no session has, nobody can guess, and that tells the replica and the tenant.

        That of a durable session has the slot of its parent, so that a branch stays where that is; or the slot that
        follows from the request that creates it, so that its repetition comes here, if that slot is this process's.
        """
        unique = secrets.token_urlsafe(_UNIQUE_BYTES) + tag_of(self.replica) + suffix_of(tenant)
        if not durable:
            return f"{self.id_prefix}{unique}"
        slot = slot_of(parent)
        if slot is None:
            slot = request_slot(request_id)
            if not request_id or slot % self.count != self.index:
                slot = self.index + self.count * secrets.randbelow(SLOTS // self.count)
        return f"{DURABLE_PREFIX}{slot:0{_SLOT_DIGITS}x}{unique}"

    def id_of_request(self, secret: bytes, request_id: str, tenant: str = DEFAULT_TENANT) -> str:
        """Returns the id of the durable session that a tenant's request makes, on whichever replica.

        Who does not know the secret, which replicas that share a directory have in common, cannot guess it.
        """
        digest = hmac.digest(secret, f"{tenant}/{request_id}".encode(), "sha256")
        unique = base64.urlsafe_b64encode(digest[:_UNIQUE_BYTES]).decode() + suffix_of(tenant)
        return f"{DURABLE_PREFIX}{request_slot(request_id):0{_SLOT_DIGITS}x}{unique}"

    def owns(self, session_id: str) -> bool:
        """Tells whether a durable session is this process's."""
        slot = slot_of(session_id)
        return slot is not None and slot % self.count == self.index


def slot_of(session_id: str) -> int | None:
    """Returns the slot of a durable session; None for an id that is not one of such."""
    digits = session_id[len(DURABLE_PREFIX) :][:_SLOT_DIGITS]
    if not session_id.startswith(DURABLE_PREFIX) or not re.fullmatch(r"[0-9a-f]{3}", digits):
        return None
    return int(digits, 16)


def request_slot(request_id: str) -> int:
    """Returns the slot of a session that a request creates, so that its repetition finds the process that has it."""
    return zlib.crc32(request_id.encode()) % SLOTS


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """What a session is and where it stands. Times are seconds since 1970; the address is that of Home."""

    session_id: str
    created: float
    last_used: float
    inputs: tuple[Input, ...]
    parameters: tuple[Parameter, ...]
    outputs: tuple[str, ...]
    has_loss: bool
    optimizer: Optimizer | None
    seed: int
    limits: Limits
    step: int
    contributions: int
    forward_ids: tuple[str, ...]
    address: str
    durability: Durability = Durability.MEMORY
    lease: LeaseCall | None = None
    max_staleness: int | None = None
    executor: Executor = Executor.NUMPY
    data_parallel: int = 0
    precision: DType = SINGLE

    @property
    def nbytes(self) -> int:
        """Roughly the bytes that it takes to say all this."""
        return 1_024 + 256 * (len(self.inputs) + len(self.parameters) + len(self.outputs) + len(self.forward_ids))


@dataclass(frozen=True, slots=True)
class Standing:
    """What a session tells of itself without waiting for its turn; each pass by its name and when it was made."""

    step: int = 0
    contributions: int = 0
    births: tuple[tuple[str, float], ...] = ()
    lease: LeaseCall | None = None
