"""How two servers that share a data directory prove that to each other: neither is told anything before it has.

Each draws a nonce, and both prove by the secret in the directory what only who can read that can say of the two nonces.
So a proof that somebody saw is good for nothing else: not on another connection, not for another purpose, and not as
that of the other side. Since they prove, too, where the one that is called is, a process that got the port
of a server comes to nothing by passing on what it is sent to another one.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass

NONCE_BYTES = 16
PROOF_BYTES = 32


def fresh_nonce() -> bytes:
    """Returns a nonce that nobody can foresee."""
    return secrets.token_bytes(NONCE_BYTES)


@dataclass(frozen=True, slots=True)
class Meeting:
    """What two servers have said on a new connection or call.

    Attributes:
        secret: The secret in the directory.
        purpose: What they are to do for each other.
        place: Where the server is that was meant to be called, as the directory tells it.
        caller: The nonce of the server that called.
        called: The nonce of the one that was called.
    """

    secret: bytes
    purpose: str
    place: str
    caller: bytes
    called: bytes

    @property
    def proof_of_caller(self) -> bytes:
        """What only who can read the secret sends as the server that called."""
        return self._proof("calls")

    @property
    def proof_of_called(self) -> bytes:
        """What only who can read the secret sends as the server that was called."""
        return self._proof("is called")

    def _proof(self, side: str) -> bytes:
        said = f"backwire {self.purpose}: who {side}, at {self.place}: ".encode() + self.caller + self.called
        return hmac.new(self.secret, said, hashlib.sha256).digest()


def agree(given: bytes, wanted: bytes) -> bool:
    """Tells whether a proof is the one that was wanted, in a time that tells nothing of where they differ."""
    return hmac.compare_digest(given, wanted)
