"""Machines of their own on one machine: network namespaces on a bridge, which can be cut off from it."""

import os
import secrets
import shutil
import subprocess
from types import TracebackType
from typing import Self


class Network:
    """Namespaces of these names, and this process, on a bridge. A context manager; needs root.

    Raises OSError or CalledProcessError where they cannot be made.
    """

    def __init__(self, *names: str) -> None:
        if os.geteuid() != 0 or shutil.which("ip") is None:
            raise OSError("network namespaces take root and the command ip")
        self._id = f"bw{secrets.token_hex(3)}"
        self._prefix = f"10.{200 + secrets.randbelow(50)}.{secrets.randbelow(256)}"
        self._names = names
        self._bridge = f"{self._id}-br"

    def address(self, name: str) -> str:
        """Returns the address of a namespace."""
        return f"{self._prefix}.{self._names.index(name) + 1}"

    def within(self, name: str) -> tuple[str, ...]:
        """Returns what runs the command that follows in a namespace."""
        return "ip", "netns", "exec", self._space(name)

    def cut(self, name: str) -> None:
        """Has all that is sent from and to a namespace get lost."""
        _ip("link", "set", self._space(name), "down")

    def mend(self, name: str) -> None:
        """Undoes `cut`."""
        _ip("link", "set", self._space(name), "up")

    def __enter__(self) -> Self:
        try:
            # An address of its own, or it has that of a port, and is not reached for a while when that changes.
            _ip("link", "add", self._bridge, "address", f"02:{secrets.token_bytes(5).hex(':')}", "type", "bridge")
            _ip("addr", "add", f"{self._prefix}.254/24", "dev", self._bridge)
            _ip("link", "set", self._bridge, "up")
            for name in self._names:
                self._add(name)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._remove()

    def _add(self, name: str) -> None:
        space = self._space(name)  # also the name of the end of the cable on this side
        _ip("netns", "add", space)
        _ip("link", "add", space, "type", "veth", "peer", "name", "eth0", "netns", space)
        _ip("link", "set", space, "master", self._bridge, "up")
        _ip("-n", space, "addr", "add", f"{self.address(name)}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", space, "link", "set", device, "up")

    def _remove(self) -> None:
        for name in self._names:
            _ip("link", "del", self._space(name), check=False)
            _ip("netns", "del", self._space(name), check=False)
        _ip("link", "del", self._bridge, check=False)

    def _space(self, name: str) -> str:
        return f"{self._id}-{name}"


def _ip(*arguments: str, check: bool = True) -> None:
    subprocess.run(["ip", *arguments], check=check, capture_output=True)
