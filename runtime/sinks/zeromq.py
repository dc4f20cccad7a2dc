"""ZmqSink: rows published over ZeroMQ, to any number of subscribers."""

from __future__ import annotations

import socket

import orjson
import zmq

from ..core.command import print_sentence, stderr_console
from ..core.errors import OutputError
from ..core.row import Row, RunFacts, facts_of
from .base import NUMPY_TOO, Sink, address_of, bracketed

HIGH_WATER_ROWS = 1000
LINGER_MS = 500
END_TOPIC = b"end"
MOST_TOPICS = 10_000
MOST_TOPIC_BYTES = 256
"""ZeroMQ keeps a node for each byte of each topic that is subscribed to, for all peers together."""


class ZmqSink(Sink):
    """An XPUB socket; each row is a message of three parts.

    The parts: the camera's name, or `end` for the last row; the row's facts as JSON, with `dtype`
    and `shape` of the third, which is that of a latent; `mu` as raw little-endian float32, empty
    where there is none. A subscriber that does not keep up loses rows beyond 1000, and only that
    subscriber does: `rows` counts what was published.
    A peer that sends more than 256 bytes at once, or than the longest topic, is disconnected, and
    where more than 10,000 topics are subscribed to, all peers are; they connect and subscribe
    again by themselves.
    The address is that of the interface to listen on.
    """

    def __init__(self, output: str, facts: RunFacts) -> None:
        host, self._port = address_of(output)
        self.name = f"zmq://{bracketed(host)}:{self._port}"
        self._shape, self._no_shape = list(facts.latent_shape), [0]
        names = [*(name.encode() for name in facts.cameras), END_TOPIC]
        # A subscription is a message that holds a word of its own too.
        self._most_bytes = 16 + max(MOST_TOPIC_BYTES, *map(len, names))
        self._has_warned = False
        self._host = host
        self._listen()
        bound = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self.name = bound.replace("tcp://", "zmq://")  # with the port that stood for port 0
        self._port = int(bound.rpartition(":")[2])

    def _listen(self) -> None:
        self._context, self._topics = zmq.Context(), 0
        self._socket = self._context.socket(zmq.XPUB)
        self._socket.setsockopt(zmq.SNDHWM, HIGH_WATER_ROWS)
        self._socket.setsockopt(zmq.RCVHWM, 1)  # subscriptions at once: ZeroMQ reads all there are
        self._socket.setsockopt(zmq.MAXMSGSIZE, self._most_bytes)
        self._socket.setsockopt(zmq.LINGER, LINGER_MS)
        try:
            found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
            number = str(found[0][4][0])
            self._socket.setsockopt(zmq.IPV6, int(":" in number))
            self._socket.bind(f"tcp://{bracketed(number)}:{self._port}")
        except (OSError, zmq.ZMQError) as error:
            self.close()
            # pyzmq appends the address to its own text.
            reason = zmq.strerror(error.errno or 0) if isinstance(error, zmq.ZMQError) else error
            raise OutputError(
                f"cannot listen on {self.name}: {getattr(reason, 'strerror', reason)}; "
                "name another port, or an address of this machine"
            ) from error

    def write(self, row: Row) -> None:
        """Publish one row; never waits for a subscriber."""
        header = facts_of(row)
        header["dtype"] = "<f4"
        header["shape"] = self._no_shape if row.mu is None else self._shape
        topic = END_TOPIC if row.camera is None else row.camera.encode()
        mu = b"" if row.mu is None else row.mu.astype("<f4", copy=False).tobytes()
        try:
            self._count_topics()
            self._socket.send_multipart((topic, orjson.dumps(header, option=NUMPY_TOO), mu))
        except zmq.ZMQError as error:
            raise OutputError(
                f"cannot publish on {self.name}: {error.strerror}; start again"
            ) from error
        self.rows += 1

    def flush(self) -> None:
        """Look after subscriptions, also while no row comes."""
        self._count_topics()

    def close(self) -> None:
        """Give subscribers half a second to fetch what waits; calling it again does nothing."""
        self._socket.close()
        self._context.term()

    def _count_topics(self) -> None:
        """Take note of subscriptions, which come as messages: 1 or 0, and the topic."""
        for _ in range(MOST_TOPICS):
            if not self._socket.poll(0):
                return
            message = self._socket.recv(zmq.NOBLOCK)
            self._topics += {b"\1": 1, b"\0": -1}.get(message[:1], 0)
            if self._topics > MOST_TOPICS:
                break
        else:
            return
        if not self._has_warned:
            self._has_warned = True
            print_sentence(
                stderr_console(),
                f"{self.name}: more than {MOST_TOPICS} topics were subscribed to: all subscribers "
                "are disconnected, and may come back",
            )
        self._socket.close(linger=0)
        self._context.term()
        self._listen()
