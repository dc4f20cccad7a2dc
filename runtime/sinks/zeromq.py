"""ZmqSink: rows published over ZeroMQ, to any number of subscribers."""

from __future__ import annotations

import socket

import orjson
import zmq

from ..core.errors import OutputError
from ..core.row import Row, RunFacts, facts_of
from .base import NUMPY_TOO, Sink, address_of, bracketed

HIGH_WATER_ROWS = 1000
LINGER_MS = 500
END_TOPIC = b"end"


class ZmqSink(Sink):
    """A PUB socket; each row is a message of three parts.

    The parts: the camera's name, or `end` for the last row; the row's facts as JSON, with `dtype`
    and `shape` of the third; `mu` as raw little-endian float32, empty where there is none. A
    subscriber that does not keep up loses rows beyond 1000, and only that subscriber does: `rows`
    counts what was published.
    The address is that of the interface to listen on.
    """

    def __init__(self, output: str, _facts: RunFacts) -> None:
        host, port = address_of(output)
        self.name = f"zmq://{bracketed(host)}:{port}"
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUB)
        self._socket.setsockopt(zmq.SNDHWM, HIGH_WATER_ROWS)
        self._socket.setsockopt(zmq.LINGER, LINGER_MS)
        try:
            number = str(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0])
            self._socket.setsockopt(zmq.IPV6, int(":" in number))
            self._socket.bind(f"tcp://{bracketed(number)}:{port}")
        except (OSError, zmq.ZMQError) as error:
            self.close()
            # pyzmq appends the address to its own text.
            reason = zmq.strerror(error.errno or 0) if isinstance(error, zmq.ZMQError) else error
            raise OutputError(
                f"cannot listen on {self.name}: {getattr(reason, 'strerror', reason)}; "
                "name another port, or an address of this machine"
            ) from error
        bound = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self.name = bound.replace("tcp://", "zmq://")  # with the port that stood for port 0

    def write(self, row: Row) -> None:
        """Publish one row; never waits for a subscriber."""
        header = facts_of(row)
        header["dtype"] = "<f4"
        header["shape"] = [0 if row.mu is None else row.mu.size]
        topic = END_TOPIC if row.camera is None else row.camera.encode()
        mu = b"" if row.mu is None else row.mu.astype("<f4", copy=False).tobytes()
        try:
            self._socket.send_multipart((topic, orjson.dumps(header, option=NUMPY_TOO), mu))
        except zmq.ZMQError as error:
            raise OutputError(
                f"cannot publish on {self.name}: {error.strerror}; start again"
            ) from error
        self.rows += 1

    def close(self) -> None:
        """Give subscribers half a second to fetch what waits; calling it again does nothing."""
        self._socket.close()
        self._context.term()
