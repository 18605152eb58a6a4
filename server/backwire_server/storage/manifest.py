"""The manifest of a session: what it is, and which checkpoints count. See docs/storage.md."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from backwire_server.sessions.calls import CheckpointInfo, CountResult
from backwire_server.sessions.keeping.durable import Durability
from backwire_server.sessions.requests import RequestKey
from backwire_server.sessions.training.state import RequestImage
from backwire_server.storage.disk import damaged

MANIFEST = "manifest.json"
DEFINITION = "session.binpb"
"""The file of what a session was made from."""
FORMAT = 1
SUFFIX = ".safetensors"
REQUESTS = 256
"""How many requests a manifest remembers."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A checkpoint on disk.

    Attributes:
        file: The name of its file.
        name: Its own, empty for one that the server made by itself.
        record: The number of the last record that its state has.
        step: The step of the state.
        contributions: How many contributions it has accumulated.
        settled: Whether nothing has changed since that step.
        digest: The digest of the state.
        seal: The seal over all else in the file; see `state_file.seal`.
        created: When it was made, in seconds since 1970.
        bytes: The size of its file.
        passing: Whether it only shortens a replay, and goes with the next that the server makes by itself.
    """

    file: str
    name: str
    record: int
    step: int
    contributions: int
    settled: bool
    digest: str
    seal: str
    created: float
    bytes: int
    passing: bool = False

    @property
    def info(self) -> CheckpointInfo:
        """What is told of it."""
        return CheckpointInfo(self.name, self.step, self.digest, self.created, self.bytes)


@dataclass(frozen=True, slots=True)
class Request:
    """A request that changed the manifest, and the checkpoint that it saved; None for one that deleted some."""

    key: RequestKey
    saved: Stored | None = None

    @property
    def image(self) -> RequestImage:
        """What a session remembers of it."""
        return RequestImage(self.key, CountResult(1) if self.saved is None else self.saved.info)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a session is, and its checkpoints, oldest first.

    Attributes:
        session_id: Its id.
        created: When it was created, in seconds since 1970.
        durability: What its mutations outlive.
        key: The request that created it.
        definition_sha256: The SHA-256 of its definition.
        checkpoints: Its checkpoints.
        ancestors: The sessions that it branched from, whose segments it may have.
        requests: The last requests that saved or deleted checkpoints, oldest first.
        begun: The number of the last record that it began with: 0, or the one that says that it branched.
        boot: The boot under which it was written, where that tells something; see `boots`.
    """

    session_id: str
    created: float
    durability: Durability
    key: RequestKey | None
    definition_sha256: str
    checkpoints: tuple[Stored, ...] = ()
    ancestors: tuple[str, ...] = ()
    requests: tuple[Request, ...] = ()
    begun: int = 0
    boot: str = ""

    @property
    def automatic(self) -> tuple[Stored, ...]:
        """The checkpoints that the server made by itself."""
        return tuple(each for each in self.checkpoints if not each.name)

    @property
    def lasting(self) -> tuple[Stored, ...]:
        """Those of them that stay, before which the journal is not kept."""
        return tuple(each for each in self.automatic if not each.passing)

    @property
    def named(self) -> tuple[Stored, ...]:
        """The checkpoints that were asked for."""
        return tuple(each for each in self.checkpoints if each.name)

    @property
    def is_unflushed(self) -> bool:
        """Whether what it began with may not be on the disk: that is seen to before a checkpoint of its own counts."""
        return self.durability is Durability.JOURNAL and all(each.record < self.begun for each in self.checkpoints)

    @property
    def assured(self) -> int:
        """The last record that is on the disk whatever happened, or without which it is no session."""
        return max([self.begun, *(each.record for each in self.checkpoints)])

    def find(self, name: str) -> Stored | None:
        """Returns the checkpoint of a name."""
        return next((each for each in self.named if each.name == name), None)

    def after(self, key: RequestKey | None, saved: Stored | None = None) -> "Manifest":
        """Returns the same with one more request remembered, if there is one, and the oldest forgotten."""
        return self if key is None else replace(self, requests=(*self.requests, Request(key, saved))[-REQUESTS:])

    def encode(self) -> bytes:
        """Returns the content of its file."""
        content = {
            "format": FORMAT,
            "session_id": self.session_id,
            "created": self.created,
            "durability": self.durability.value,
            "request": self.key and _encode_key(self.key),
            "definition_sha256": self.definition_sha256,
            "checkpoints": [asdict(each) for each in self.checkpoints],
            "ancestors": list(self.ancestors),
            "requests": [
                {**_encode_key(each.key), "saved": each.saved and asdict(each.saved)} for each in self.requests
            ],
            "begun": self.begun,
            "boot": self.boot,
        }
        content["sha256"] = _digest(content)
        return json.dumps(content, indent=1).encode() + b"\n"


def read_manifest(directory: Path) -> Manifest:
    """Returns the manifest of the session in a directory; raises SessionQuarantined, and OSError."""
    path = directory / MANIFEST
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise damaged(path, "the file is missing") from None
    try:
        manifest = decode(data)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise damaged(path, f"it is not what was written ({error})") from None
    if manifest.session_id != directory.name:
        raise damaged(path, f"it belongs to another session, {manifest.session_id!r}")
    return manifest


def decode(data: bytes) -> Manifest:
    """Returns what `Manifest.encode` wrote; raises ValueError, TypeError, KeyError or AttributeError for all else."""
    content = json.loads(data)
    if content.pop("sha256") != _digest(content):
        raise ValueError("its checksum is wrong")
    if content["format"] != FORMAT:
        raise ValueError(f"it has format {content['format']}, and this version knows {FORMAT}")
    request = content["request"]
    requests = [Request(_decode_key(each), each["saved"] and Stored(**each["saved"])) for each in content["requests"]]
    return Manifest(
        content["session_id"],
        content["created"],
        Durability(content["durability"]),
        request and _decode_key(request),
        content["definition_sha256"],
        tuple(Stored(**each) for each in content["checkpoints"]),
        tuple(content["ancestors"]),
        tuple(requests),
        content.get("begun", 0),
        content.get("boot", ""),
    )


def _encode_key(key: RequestKey) -> dict[str, Any]:
    return {"id": key.request_id, "fingerprint": key.fingerprint.hex()}


def _decode_key(content: Mapping[str, str]) -> RequestKey:
    return RequestKey(content["id"], bytes.fromhex(content["fingerprint"]))


def _digest(content: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of the content but for that itself, as JSON with sorted keys and no spaces."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
