from __future__ import annotations

import errno
import math
import os
import re
import shutil
import socket
import struct
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from motorvae.runtime.core.errors import ConfigError, OutputError
from motorvae.runtime.core.row import Row, RunFacts
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.sinks.udp import UdpSink

TEXT = (Path(__file__).parents[3] / "docs" / "sinks.md").read_text(encoding="utf-8")
LATENTS = 6
FACTS = RunFacts(
    ModelSpec(image_size=32, latent_size=LATENTS),
    ("front", "rear"),
    "ab" * 32,
    "onnxruntime cpu",
    lossless=False,
)
LETTERS = {"uint8": "B", "uint16": "H", "uint32": "I", "int64": "q", "float32": "f"}
MU = np.array([0.1, -2.5, 3e-9, 4, 5, -6], np.float32)
OK = Row(
    7,
    1_700_000_000_000_000_001,
    4.25,
    3,
    "ok",
    MU,
    "rear",
    duplicate=True,
    gap_ms=1500.5,
    mahalanobis=2.75,
    is_ood=True,
    unwritten=9,
)
LOST = Row(8, 1_700_000_000_000_000_002, None, 0, "lost", MU, "front", reason="gone")
END = Row(9, 1_700_000_000_000_000_003, None, 0, "end")
MAIN = r"""
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>

int main(void) {
    struct motorvae_packet p;
    size_t bytes = offsetof(struct motorvae_packet, crc32) + sizeof p.crc32;
    while (fread(&p, 1, bytes, stdin) == bytes) {
        printf("%.4s %u %u %u %u %u ", p.magic, p.version, p.status, p.flags, p.camera,
               p.latent_size);
        printf("%" PRIu32 " %" PRId64 " %" PRId64 " %g %" PRIu32 " %g %g %" PRIu32, p.sequence,
               p.index, p.captured_ns, p.age_ms, p.dropped, p.gap_ms, p.mahalanobis, p.unwritten);
        for (int i = 0; i < LATENTS; i++) printf(" %.9g", p.mu[i]);
        printf(" %" PRIu32 "\n", p.crc32);
    }
    return 0;
}
"""


@pytest.fixture
def receiver() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind(("127.0.0.1", 0))
        opened.settimeout(60)
        yield opened


@pytest.fixture
def packets(receiver: socket.socket) -> list[bytes]:
    """Three rows as they arrive."""
    with UdpSink(f"udp://:{receiver.getsockname()[1]}", FACTS) as sink:
        for row in (OK, LOST, END):
            sink.write(row)
        assert sink.rows == 3
    return [receiver.recv(65536) for _ in range(3)]


def layout() -> Iterator[tuple[str, int, str]]:
    """Field, offset and format of each line of the documented table."""
    lines = re.findall(r"^\| (\d[\d+ D]*?) \| (\S+) \| (\w+) \|", TEXT, re.MULTILINE)
    for offset, kind, field in lines:
        name, _, count = kind.rstrip("]").partition("[")
        number = {"D": LATENTS, "": 1}.get(count) or int(count)
        letter = f"{number}s" if name == "char" else f"{number}{LETTERS[name]}"
        yield field, eval(offset.replace(" D", f" * {LATENTS}")), f"<{letter}"  # noqa: S307  # our table


def decoded(packet: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {}
    end = 0
    for field, offset, form in layout():
        assert offset == end, field
        values = struct.unpack_from(form, packet, offset)
        found[field] = values if field == "mu" else values[0]
        end = offset + struct.calcsize(form)
    assert end == len(packet)
    return found


def test_a_packet_is_what_the_table_says(packets: list[bytes]) -> None:
    ok = decoded(packets[0])
    mu = ok.pop("mu")
    assert np.array_equal(np.array(mu, np.float32), MU)
    assert ok == {
        "magic": b"mVAE",
        "version": 1,
        "status": 0,
        "flags": 7,
        "reserved": 0,
        "camera": 1,
        "latent_size": LATENTS,
        "sequence": 0,
        "index": 7,
        "captured_ns": 1_700_000_000_000_000_001,
        "age_ms": 4.25,
        "dropped": 3,
        "gap_ms": 1500.5,
        "mahalanobis": 2.75,
        "unwritten": 9,
        "crc32": zlib.crc32(packets[0][:-4]),
    }
    assert [len(packet) for packet in packets] == [56 + 4 * LATENTS] * 3


def test_what_is_not_ok_cannot_be_mistaken_for_a_latent(packets: list[bytes]) -> None:
    lost, end = decoded(packets[1]), decoded(packets[2])
    assert (lost["status"], lost["camera"], lost["sequence"], lost["flags"]) == (2, 0, 1, 0)
    assert (end["status"], end["camera"], end["sequence"]) == (3, 0xFFFF, 2)
    for packet in (lost, end):
        assert all(map(math.isnan, packet["mu"]))
        assert all(math.isnan(packet[name]) for name in ("age_ms", "gap_ms", "mahalanobis"))


def test_every_field_is_naturally_aligned() -> None:
    sizes = {"4s": 1}
    for field, offset, form in layout():
        size = sizes.get(form[1:]) or struct.calcsize(f"<{form[-1]}")
        assert offset % size == 0, field


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler called cc")
def test_the_struct_in_the_documentation_compiles_and_reads_packets(
    tmp_path: Path, packets: list[bytes]
) -> None:
    (source,) = re.findall(r"^```c\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    (tmp_path / "read.c").write_text(source + MAIN)
    command = ["cc", "-Wall", "-Wextra", "-Werror", f"-DLATENTS={LATENTS}", "read.c", "-o", "read"]
    subprocess.run(command, cwd=tmp_path, check=True)
    done = subprocess.run(
        [tmp_path / "read"], input=b"".join(packets), capture_output=True, check=True
    )
    ok, lost, _end = done.stdout.decode().splitlines()
    head, values = ok.split()[:14], ok.split()[14:]
    assert head == [
        *["mVAE", "1", "0", "7", "1", str(LATENTS), "0", "7"],
        *["1700000000000000001", "4.25", "3", "1500.5", "2.75", "9"],
    ]
    assert np.array_equal(np.array(values[:-1], np.float32), MU)
    assert int(values[-1]) == zlib.crc32(packets[0][:-4])
    assert lost.split()[14:-1] == ["nan"] * LATENTS


def test_nobody_listening_is_no_failure(receiver: socket.socket) -> None:
    port = receiver.getsockname()[1]
    receiver.close()
    with UdpSink(f"udp://127.0.0.1:{port}", FACTS) as sink:
        for _ in range(20):
            sink.write(OK)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as late:
            late.bind(("127.0.0.1", port))
            late.settimeout(60)
            sink.write(OK)
            assert decoded(late.recv(65536))["sequence"] == 20


def test_a_packet_that_the_network_does_not_take_leaves_a_hole_in_the_sequence(
    receiver: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unplugged(socket.socket):
        plugged = False

        def sendto(self, *args: Any) -> int:
            if self.plugged:
                return super().sendto(*args)
            raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))

    monkeypatch.setattr(socket, "socket", Unplugged)
    with UdpSink(f"udp://:{receiver.getsockname()[1]}", FACTS) as sink:
        sink.write(OK)
        assert sink.rows == 0
        Unplugged.plugged = True
        sink.write(OK)
        assert sink.rows == 1
    assert decoded(receiver.recv(65536))["sequence"] == 1


def test_more_latents_than_a_packet_carries_are_refused(receiver: socket.socket) -> None:
    port = receiver.getsockname()[1]

    def facts(latents: int) -> RunFacts:
        return RunFacts(
            ModelSpec(image_size=32, latent_size=latents), ("front",), "", "", lossless=False
        )

    with UdpSink(f"udp://:{port}", facts(16362)) as sink:
        sink.write(Row(0, 1, None, 0, "lost", camera="front"))
        assert len(receiver.recv(70000)) == 56 + 4 * 16362
    with pytest.raises(ConfigError) as caught:
        UdpSink(f"udp://:{port}", facts(16363))
    assert str(caught.value) == (
        f"output='udp://127.0.0.1:{port}': a packet of 16363 latents has 65508 bytes "
        "and UDP carries 65507: use zmq://"
    )


@pytest.mark.parametrize(
    ("output", "kind", "message"),
    [
        ("udp://:0", ConfigError, "name the port that the receiver listens on"),
        (
            "udp://no-such-host.invalid:5",
            OutputError,
            "cannot send to udp://no-such-host.invalid:5",
        ),
    ],
)
def test_a_receiver_that_cannot_be_is_refused(
    output: str, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        UdpSink(output, FACTS)


def test_an_address_that_needs_rights_is_said() -> None:
    broadcast = "udp://255.255.255.255:9"
    refused = pytest.raises(OutputError, match=f"cannot write {broadcast}: Permission denied")
    with UdpSink(broadcast, FACTS) as sink, refused:
        sink.write(OK)
