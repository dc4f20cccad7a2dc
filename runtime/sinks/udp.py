"""UdpSink: one packet of fixed size a row, for receivers as small as a microcontroller."""

from __future__ import annotations

import contextlib
import errno
import math
import socket
import struct
import zlib

import numpy as np

from ..core.errors import ConfigError, OutputError
from ..core.row import Row, RunFacts
from .base import Sink, address_of, bracketed

MAGIC = b"mVAE"
PACKET_VERSION = 1
STATUS_CODES = {"ok": 0, "stale": 1, "lost": 2, "end": 3}
DUPLICATE, OUT_OF_DISTRIBUTION, HAS_GAP = 1, 2, 4
NO_CAMERA = 0xFFFF
LARGEST_PAYLOAD_BYTES = 65507
# docs/sinks.md says what each is; a test compiles the struct that stands there.
_HEAD = struct.Struct("<4sBBBBHHIqqfIffI")
_CRC = struct.Struct("<I")
# The network, not the sink, has failed: the packet is lost as any may be, and the next may not be.
_PASSING = {
    errno.ECONNREFUSED,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.ENOBUFS,
}


class UdpSink(Sink):
    """Packets to one receiver, which need not be there.

    A packet says how many numbers a latent has, and not its shape, which is the bundle's.
    A packet that the network does not take is not counted in `rows`, but has its sequence number,
    so that a receiver sees that one is missing.
    """

    def __init__(self, output: str, facts: RunFacts) -> None:
        host, port = address_of(output)
        self.name = f"udp://{bracketed(host)}:{port}"
        packet_bytes = _HEAD.size + 4 * facts.latent_size + _CRC.size
        if packet_bytes > LARGEST_PAYLOAD_BYTES:
            raise ConfigError(
                f"output={self.name!r}: a packet of {facts.latent_size} latents has "
                f"{packet_bytes} bytes and UDP carries {LARGEST_PAYLOAD_BYTES}: use zmq://"
            )
        if port == 0:
            raise ConfigError(f"output={self.name!r}: name the port that the receiver listens on")
        self._cameras = {camera: number for number, camera in enumerate(facts.cameras)}
        self._latent_size = facts.latent_size
        self._no_latents = np.full(facts.latent_size, np.nan, "<f4").tobytes()
        self._sequence = 0
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
            # Not connected: Linux would report a receiver that is not there at the next packet.
            self._socket = socket.socket(*found[:3])
        except OSError as error:
            raise OutputError(
                f"cannot send to {self.name}: {error.strerror or error}; name a host that exists"
            ) from error
        self._address = found[4]

    def write(self, row: Row) -> None:
        """Send one row; raises where the system refuses to send there at all."""
        flags = DUPLICATE if row.duplicate else 0
        flags |= OUT_OF_DISTRIBUTION if row.is_ood else 0
        flags |= 0 if row.gap_ms is None else HAS_GAP
        head = _HEAD.pack(
            MAGIC,
            PACKET_VERSION,
            STATUS_CODES[row.status],
            flags,
            0,
            NO_CAMERA if row.camera is None else self._cameras[row.camera],
            self._latent_size,
            self._sequence,
            row.index,
            row.captured_ns,
            _nan_if_unknown(row.age_ms),
            min(row.dropped, 0xFFFFFFFF),
            _nan_if_unknown(row.gap_ms),
            _nan_if_unknown(row.mahalanobis),
            min(row.unwritten or 0, 0xFFFFFFFF),
        )
        mu = self._no_latents
        if row.status == "ok" and row.mu is not None:
            mu = row.mu.astype("<f4", copy=False).tobytes()
        packet = head + mu + _CRC.pack(zlib.crc32(mu, zlib.crc32(head)))
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        with self._writing():
            try:
                self._socket.sendto(packet, self._address)
            except OSError as error:
                if error.errno not in _PASSING:
                    raise
            else:
                self.rows += 1

    def close(self) -> None:
        """Close the socket; calling it again does nothing."""
        with contextlib.suppress(OSError):
            self._socket.close()


def _nan_if_unknown(value: float | None) -> float:
    return math.nan if value is None else value
