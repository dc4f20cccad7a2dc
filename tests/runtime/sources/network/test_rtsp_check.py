"""What an RTSP server may not send us on to, or make us read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from motorvae.runtime.core.errors import SourceError
from motorvae.runtime.sources.base import CaptureRequest
from motorvae.runtime.sources.network.rtsp_check import check_rtsp
from motorvae.runtime.sources.spec import SourceSpec
from motorvae.runtime.sources.video.source import VideoSource

from .scripted import Scripted


def moved(port: int, scheme: str = "rtsp") -> bytes:
    return f"RTSP/1.0 302 Moved\r\nLocation: {scheme}://127.0.0.1:{port}/\r\n\r\n".encode()


def test_a_redirection_to_another_port_is_not_followed() -> None:
    with Scripted(lambda _: []) as other, Scripted(lambda _: [moved(other.port)]) as server:
        url = server.url("/", "rtsp")
        for spec in (SourceSpec.parse(url), SourceSpec.parse(url, transport="udp")):
            with pytest.raises(SourceError, match=f"leads on to '127.0.0.1:{other.port}'"):
                VideoSource(spec, CaptureRequest(timeout_s=30))
        assert other.connections == 0
        check_rtsp(url, 30, [f"127.0.0.1:{other.port}"])


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"RTSP/1.0 200 OK\r\nX: " + b"a" * 70_000, "its header is longer than 65536 bytes"),
        (b"RTSP/1.0 200 OK\r\n" + b"X: y\r\n" * 20_000, "its header is longer than 65536 bytes"),
        (
            b"RTSP/1.0 200 OK\r\nContent-Length: 2147483000\r\n\r\nv=0",
            "its description is announced with 2147483000 bytes",
        ),
        (moved(80, "http"), "an address of another kind: 'http'"),
    ],
)
def test_answers_that_do_not_reach_ffmpeg(answer: bytes, reason: str) -> None:
    with Scripted(lambda _: [answer]) as server, pytest.raises(SourceError, match=reason):
        VideoSource(SourceSpec.parse(server.url("/", "rtsp")), CaptureRequest(timeout_s=30))


@pytest.mark.parametrize("answer", [b"RTSP/1.0 401 No\r\n\r\n", b"RTSP/1.0 200 OK\r\n\r\n", b""])
def test_answers_that_ffmpeg_may_have(answer: bytes) -> None:
    with Scripted(lambda _: [answer]) as server:
        check_rtsp(server.url("/", "rtsp"), 30, [])


def test_silence() -> None:
    def script(_: bytes) -> Iterator[bytes]:
        server.closing.wait(30)
        yield b""

    with Scripted(script) as server, pytest.raises(TimeoutError, match="no frame came for"):
        check_rtsp(server.url("/", "rtsp"), 0.1, [])
