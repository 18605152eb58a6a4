"""Page tokens: where a list goes on, in a form that clients can neither read nor make up."""

import base64
import binascii
import hashlib
import hmac
import secrets

from backwire_server.sessions.errors import InvalidPageToken

_NUMBER_BYTES = 8
_TAG_BYTES = 8


class PageTokens:
    """Issues and reads tokens that stand for a number; each instance reads only its own."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def issue(self, number: int) -> str:
        """Returns the token of a number from 0 on."""
        plain = number.to_bytes(_NUMBER_BYTES, "big")
        return base64.urlsafe_b64encode(plain + self._tag(plain)).decode().rstrip("=")

    def read(self, token: str) -> int:
        """Returns the number; raises InvalidPageToken for what was not issued."""
        try:
            data = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            data = b""
        plain, tag = data[:_NUMBER_BYTES], data[_NUMBER_BYTES:]
        if len(plain) != _NUMBER_BYTES or not hmac.compare_digest(tag, self._tag(plain)):
            raise InvalidPageToken(
                "page_token was not issued by this server since it started; begin again with an empty one",
                field="page_token",
            )
        return int.from_bytes(plain, "big")

    def _tag(self, plain: bytes) -> bytes:
        return hmac.digest(self._secret, plain, hashlib.sha256)[:_TAG_BYTES]
