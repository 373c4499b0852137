"""Messages between a worker and its sandboxed children: a JSON header and raw bytes, over a socket of their own.

Nothing is unpickled, so that a child that was taken over cannot make its worker run code. Bytes go through the socket
itself: two children write 256x256 pairs to it four times as fast as to a memfd each, whose pages are made and thrown
away every time; nothing is left in /dev/shm, which is tiny in containers; and macOS does the same.
"""

import json
import socket
import struct
from collections.abc import Sequence
from typing import Any

# Anything with the buffer protocol that lies in one piece.
Buffer = Any

_HEADER = struct.Struct("<I")


def send(connection: socket.socket, header: Any, parts: Sequence[Buffer] = ()) -> None:
    """Send a message. Raises OSError where the other side is gone."""
    views = [memoryview(part).cast("B") for part in parts]
    text = json.dumps([header, [len(view) for view in views]]).encode()
    connection.sendall(_HEADER.pack(len(text)) + text)
    for view in views:
        connection.sendall(view)


def receive(connection: socket.socket) -> tuple[Any, list[bytearray]]:
    """The next message: its header and its parts.

    Raises:
        EOFError: the other side is gone.
        BlockingIOError: the socket's time is over (SO_RCVTIMEO).
    """
    (length,) = _HEADER.unpack(_receive_bytes(connection, _HEADER.size))
    header, sizes = json.loads(_receive_bytes(connection, length))
    return header, [_receive_bytes(connection, size) for size in sizes]


def send_descriptor(connection: socket.socket, descriptor: int) -> None:
    """Give the other side an open file. Raises OSError where it is gone."""
    socket.send_fds(connection, [b"\0"], [descriptor])


def receive_descriptor(connection: socket.socket) -> int:
    """The file that `send_descriptor` gave. Raises EOFError if the other side is gone."""
    _, (descriptor,), _, _ = socket.recv_fds(connection, 1, 1)
    return descriptor


def _receive_bytes(connection: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        received = connection.recv_into(view, len(view), socket.MSG_WAITALL)
        if not received:
            raise EOFError("the other side is gone")
        view = view[received:]
    return data
