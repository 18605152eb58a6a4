"""The first bytes on a lane: each side proves to the other that it shares the data directory.

Who opens it sends a nonce, is answered with the nonce and the proof of the other, sends its own proof, and is told by a
byte that the lane is open. Whoever listens on a port that another server had, or connects without the secret, learns
nothing of use, and opens no lane by passing on what one server says to another.
"""

import socket

from backwire_server.rpc.replicas import lane_frames as frames
from backwire_server.rpc.replicas.lane_frames import LaneBroken
from backwire_server.rpc.replicas.proving import NONCE_BYTES, PROOF_BYTES, Meeting, agree, fresh_nonce

PURPOSE = "lane"

OPENED = b"\x01"
"""What says that a lane is open."""


def place_of(address: str, port: str) -> str:
    """Returns what is proved of where the lanes of a server are: its address, and the port, as others are told both."""
    return f"{address}, port {port}"


def open_lane(connection: socket.socket, secret: bytes, place: str) -> None:
    """Greets as who has connected to a place.

    Raises LaneBroken for one that does not know the secret, is elsewhere, or refuses, and OSError.
    """
    caller = fresh_nonce()
    connection.sendall(caller)
    meeting = Meeting(secret, PURPOSE, place, caller, frames.receive(connection, NONCE_BYTES))
    if not agree(frames.receive(connection, PROOF_BYTES), meeting.proof_of_called):
        raise LaneBroken
    connection.sendall(meeting.proof_of_caller)
    if frames.receive(connection, len(OPENED)) != OPENED:
        raise LaneBroken


def admit(connection: socket.socket, secret: bytes, place: str) -> None:
    """Greets as who has listened at a place, up to where the lane may be open.

    Raises LaneBroken, as `open_lane`, and OSError.
    """
    meeting = Meeting(secret, PURPOSE, place, frames.receive(connection, NONCE_BYTES), fresh_nonce())
    connection.sendall(meeting.called + meeting.proof_of_called)
    if not agree(frames.receive(connection, PROOF_BYTES), meeting.proof_of_caller):
        raise LaneBroken
