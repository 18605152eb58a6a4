"""Page tokens: where a list goes on, in a form that clients cannot make up."""

import base64
import binascii
import hashlib
import hmac
import secrets

from backwire_server.sessions.errors import InvalidPageToken, InvalidRequest

DEFAULT_PAGE = 100
LARGEST_PAGE = 1_000

_NUMBER_BYTES = 8
_TAG_BYTES = 8


def page_limit(page_size: int, field: str = "page_size") -> int:
    """Returns the most sessions of a page that was asked for in a field; raises InvalidRequest for a negative size."""
    if page_size < 0:
        raise InvalidRequest(f"{field} is {page_size}; give 0 to {LARGEST_PAGE:,}", field=field)
    return min(page_size or DEFAULT_PAGE, LARGEST_PAGE)


class PageTokens:
    """Issues and reads tokens that stand for a number, or for any bytes; each instance reads only its own."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def issue(self, number: int) -> str:
        """Returns the token of a number from 0 on."""
        return self.seal(number.to_bytes(_NUMBER_BYTES, "big"))

    def read(self, token: str) -> int:
        """Returns the number; raises InvalidPageToken for what was not issued."""
        return int.from_bytes(self.open(token), "big")

    def seal(self, plain: bytes) -> str:
        """Returns the token of some bytes, which can be read from it."""
        return base64.urlsafe_b64encode(self._tag(plain) + plain).decode().rstrip("=")

    def open(self, token: str) -> bytes:
        """Returns the bytes; raises InvalidPageToken for what was not issued."""
        try:
            data = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            data = b""
        tag, plain = data[:_TAG_BYTES], data[_TAG_BYTES:]
        if not hmac.compare_digest(tag, self._tag(plain)):
            raise InvalidPageToken(
                "page_token was not issued by this server since it started; begin again with an empty one",
                field="page_token",
            )
        return plain

    def _tag(self, plain: bytes) -> bytes:
        return hmac.digest(self._secret, plain, hashlib.sha256)[:_TAG_BYTES]
