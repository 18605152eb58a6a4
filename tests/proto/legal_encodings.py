"""Writes messages in all forms that the encoding allows."""

import random

from backwire_api import wire_scan


class Writer(random.Random):
    """Writes fields in forms that the encoding allows: everyday ones, and with probability `oddity` others."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.oddity = self.choice([0.0, 0.0, 0.02, 0.2])

    def odd(self) -> bool:
        return self.random() < self.oddity

    def number(self, value: int, longest: int = 10) -> bytes:
        """A varint, perhaps longer than it need be."""
        return wire_scan.varint(value, self.randint(1, longest) if self.odd() else 0)

    def sized(self, tag: int, content: bytes) -> bytes:
        return self.number(tag, 5) + self.number(len(content), 5) + content

    def fields(self, fields: list[bytes]) -> bytes:
        """The fields, perhaps shuffled, one left out, one twice, and with one that no message here has."""
        found = list(fields)
        if self.odd():
            self.shuffle(found)
        if found and self.odd():
            del found[self.randrange(len(found))]
        if found and self.odd():
            found.insert(self.randrange(len(found)), self.choice(fields))
        if self.odd():
            foreign = [b"\x78\x07", b"\xf9\x01abcdefgh", b"\x7dabcd", b"\xfb\x01\x08\x01\xfc\x01", b"\x7a\x02hi"]
            found.insert(self.randint(0, len(found)), self.choice(foreign))
        return b"".join(found)

    def tensor(self) -> bytes:
        shape = [self.randrange(400) for _ in range(self.randrange(4))]
        packed = self.sized(0x12, b"".join(map(self.number, shape)))
        unpacked = b"".join(b"\x10" + self.number(size) for size in shape)
        dtype = b"\x08" + self.number(self.randrange(2**64) if self.odd() else self.randrange(15))
        return self.fields([dtype, unpacked if self.odd() else packed, self.sized(0x1A, self.randbytes(200))])

    def entry(self) -> bytes:
        key = "x" if self.odd() else self.choice(["a", "größe", ""]) + str(self.randrange(100))
        return self.sized(0x12, self.fields([self.sized(0x0A, key.encode()), self.sized(0x12, self.tensor())]))

    def forward(self) -> bytes:
        """A ForwardRequest."""
        entries = [self.entry() for _ in range(self.randrange(4))]
        others = [self.sized(0x0A, b"session"), b"\x18" + self.number(self.randrange(3)), self.sized(0x22, b"y")]
        return self.fields([*others, *entries])
