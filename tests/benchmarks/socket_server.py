"""The least that moving bytes between processes takes: a socket that takes so many bytes, or gives them."""

import socket
import struct
import sys

HEAD = struct.Struct("<cq")
TAKE, GIVE = b"t", b"g"


def main() -> None:
    """Serves one connection until it is closed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sys.stdout.write(f"backwire listening on 127.0.0.1:{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        connection, _ = listener.accept()
    buffer = bytearray(1)
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while head := connection.recv(HEAD.size, socket.MSG_WAITALL):
            what, size = HEAD.unpack(head)
            if len(buffer) < size:
                buffer = bytearray(size)
            if what == TAKE:
                receive(connection, memoryview(buffer)[:size])
                connection.sendall(b"!")
            else:
                connection.sendall(memoryview(buffer)[:size])


def receive(connection: socket.socket, target: memoryview) -> None:
    """Fills the target."""
    while target:
        target = target[connection.recv_into(target) :]


if __name__ == "__main__":
    main()
