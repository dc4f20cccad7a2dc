"""What comes from a web server: live or recording, who may be asked for it, and how much it is."""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from motorvae.runtime.core.errors import CameraError, SourceError
from motorvae.runtime.core.frame import Frame
from motorvae.runtime.sources.base import CaptureRequest
from motorvae.runtime.sources.network import hls
from motorvae.runtime.sources.spec import SourceSpec
from motorvae.runtime.sources.video.source import VideoSource

from .clips import count_frames, make_clip, needs_ffmpeg
from .scripted import Scripted, response

pytestmark = needs_ffmpeg
REQUEST = CaptureRequest(timeout_s=30)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of clips of 20 frames; those in parts are of 5."""
    folder = tmp_path_factory.mktemp("clips")
    make_clip(folder / "clip.mp4", "-movflags", "+faststart")
    make_clip(folder / "clip.ts")
    make_clip(folder / "clip.flv", "-flvflags", "no_duration_filesize")
    make_clip(folder / "clip.mkv", "-live", "1")
    split = ("-f", "hls", "-hls_time", "0.5", "-hls_list_size", "0", "-hls_playlist_type", "vod")
    make_clip(folder / "clip.m3u8", *split)
    long = ("-f", "hls", "-hls_time", "2.5", "-hls_list_size", "0")
    make_clip(folder / "long.m3u8", *long, frames=125)
    make_clip(folder / "parts.m3u8", *split, "-hls_segment_type", "fmp4")
    make_clip(folder / "one.m3u8", *split, "-hls_flags", "single_file")
    return folder


class WebServer(Scripted):
    """Serves a folder, with lengths and ranges, or in chunks where the query says so."""

    def __init__(self, folder: Path) -> None:
        self.replies: dict[str, bytes] = {}
        self._folder = folder
        super().__init__(self._reply)

    def _reply(self, head: bytes) -> Iterable[bytes]:
        name, _, query = head.split()[1].decode().removeprefix("/").partition("?")
        if name in self.replies:
            yield self.replies[name]
            return
        path = self._folder / name
        if not path.is_file():
            yield response(status="404 Not Found")
            return
        data = path.read_bytes()
        if query == "chunked":
            yield response(transfer_encoding="chunked")
            for at in range(0, len(data), 1000):
                piece = data[at : at + 1000]
                yield b"%x\r\n%b\r\n" % (len(piece), piece)
            yield b"0\r\n\r\n"
            return
        asked = re.search(rb"bytes=(\d+)-(\d*)", head)
        start = int(asked[1]) if asked else 0
        data = data[start : int(asked[2]) + 1 if asked and asked[2] else None]
        status = "206 Partial Content" if asked else "200 OK"
        says = {} if query == "quiet" else {"accept_ranges": "bytes"}
        yield response(data, status, content_length=len(data), **says)


@pytest.fixture
def server(clips: Path) -> Iterator[WebServer]:
    with WebServer(clips) as server:
        yield server


def spec_of(url: str, **options: object) -> SourceSpec:
    return SourceSpec.parse(url, **options)  # type: ignore[arg-type]


def watch(spec: SourceSpec) -> tuple[int, str | None]:
    """Return how many frames come, and why a live one ends."""
    with VideoSource(spec, REQUEST) as source:
        return drained(source)


def drained(source: VideoSource) -> tuple[int, str | None]:
    count = 0
    try:
        while (item := source.read()) is not None:
            count += isinstance(item, Frame)
    except CameraError as error:
        assert source.live
        assert source.can_reconnect
        return count, error.clause()
    assert not source.live
    return count, None


@pytest.mark.parametrize(
    "name", ["clip.mp4", "clip.ts", "clip.flv", "clip.mkv", "clip.m3u8", "parts.m3u8", "one.m3u8"]
)
def test_what_has_a_length_is_a_recording(name: str, server: WebServer, clips: Path) -> None:
    assert watch(spec_of(server.url(f"/{name}"))) == (count_frames(clips / name), None)


@pytest.mark.parametrize("name", ["clip.ts", "clip.flv", "clip.mkv"])
def test_what_has_no_length_is_live_unless_the_user_knows_better(
    name: str, server: WebServer
) -> None:
    url = server.url(f"/{name}?chunked")
    assert watch(spec_of(url)) == (20, "the stream ended")
    assert watch(spec_of(url, is_live=False)) == (20, None)
    assert watch(spec_of(server.url(f"/{name}"), is_live=True)) == (20, "the stream ended")


def test_a_server_that_sends_parts_need_not_say_so(server: WebServer, clips: Path) -> None:
    large = ("-bf", "0", "-x264-params", "filler=1:bitrate=9000:vbv-maxrate=9000:vbv-bufsize=9000")
    make_clip(clips / "index-last.mp4", *large, "-nal-hrd", "cbr")
    assert (clips / "index-last.mp4").stat().st_size > 1 << 18
    assert watch(spec_of(server.url("/index-last.mp4?quiet"))) == (20, None)


def test_a_header_that_announces_an_end_makes_a_recording_of_chunks(server: WebServer) -> None:
    assert watch(spec_of(server.url("/clip.mp4?chunked"))) == (20, None)


def test_a_recording_that_is_cut_off_says_where(server: WebServer, clips: Path) -> None:
    data = (clips / "clip.ts").read_bytes()
    server.replies["cut.ts"] = response(data[: len(data) // 2], content_length=len(data))
    with VideoSource(spec_of(server.url("/cut.ts")), REQUEST) as source:
        *_, last = iter(source.read, None)
    assert getattr(last, "reason", "") == (
        f"reading failed: the connection closed after {len(data) // 2} of {len(data)} bytes"
    )


def playlist(*segments: str, first: int = 0, end: bool = False) -> bytes:
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:0.2", f"#EXT-X-MEDIA-SEQUENCE:{first}"]
    for segment in segments:
        lines += ["#EXTINF:0.5,", segment]
    return "\n".join([*lines, *["#EXT-X-ENDLIST"] * end, ""]).encode()


def test_a_live_playlist_that_stands_still_is_a_loss(server: WebServer) -> None:
    """The newest three segments come, then nothing, and what has ended is not shown again."""
    server.replies["live.m3u8"] = response(playlist(*(f"long{n}.ts" for n in range(5))))
    with VideoSource(spec_of(server.url("/live.m3u8")), CaptureRequest(timeout_s=1)) as source:
        count, reason = drained(source)
        assert 73 <= count <= 75  # what follows might have belonged to the last ones
        assert reason is not None
        assert "for 1.4 s" in reason
        server.replies["live.m3u8"] = response(playlist("long4.ts", end=True))
        with pytest.raises(SourceError, match="the playlist says that the stream has ended"):
            source.reopen()


@pytest.mark.parametrize("segment", [b"", b"\x47\x1f\xff\x10" + b"\xff" * 184])
def test_live_segments_without_a_frame_are_a_loss(segment: bytes) -> None:
    """Each look at the playlist finds another one, empty or of null packets, for ever."""
    looks = itertools.count()

    def reply(head: bytes) -> Iterator[bytes]:
        if b".m3u8" in head:
            yield response(playlist(*"abcd", first=next(looks)))
        else:
            yield response(segment, content_length=len(segment))

    with Scripted(reply) as server:
        began_s = time.monotonic()
        with pytest.raises(SourceError, match=r"segments came without a frame for 1\.4 s"):
            VideoSource(spec_of(server.url("/live.m3u8")), CaptureRequest(timeout_s=1))
    assert time.monotonic() - began_s < 20


def test_a_live_playlist_is_read_on_to_its_end(server: WebServer) -> None:
    names = [f"long{n}.ts" for n in range(5)]
    server.replies["live.m3u8"] = response(playlist(*names[:4]))
    with VideoSource(spec_of(server.url("/live.m3u8")), REQUEST) as source:
        assert isinstance(source.read(), Frame)
        server.replies["live.m3u8"] = response(playlist(*names[2:], first=2, end=True))
        assert drained(source) == (99, "the stream ended")


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (playlist("gone.ts", end=True), "the server answered 404 Not Found"),
        (playlist("file:///etc/passwd", end=True), "an address of another kind: 'file'"),
        (b"<html>", "this is no playlist"),
        (b"#EXTM3U\n#EXT-X-STREAM-INF:X=1\nloop.m3u8\n", "leads to further playlists"),
        (b"#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI=k\nclip0.ts\n", "segments are encrypted"),
        (b"#EXTM3U\n" + b"a\n" * 200_001, "holds more than 200000 segments"),
        (b"#EXTM3U\n" + b"#" * (9 << 20), "the playlist is longer than 8 MiB"),
    ],
)
def test_playlists_that_are_refused(reply: bytes, reason: str, server: WebServer) -> None:
    server.replies["loop.m3u8"] = response(reply)
    with pytest.raises(SourceError, match=reason):
        VideoSource(spec_of(server.url("/loop.m3u8")), REQUEST)


def test_a_wait_for_more_segments_can_be_interrupted(server: WebServer) -> None:
    server.replies["live.m3u8"] = response(playlist("clip0.ts"))
    reader = hls.HlsReader(hls.HttpClient(server.url("/live.m3u8"), 600), 600)
    while reader.read(1 << 20):
        reader.interrupt()
    reader.close()


def test_segments_that_left_the_playlist_are_missed(server: WebServer) -> None:
    server.replies["live.m3u8"] = response(playlist("clip0.ts"))
    reader = hls.HlsReader(hls.HttpClient(server.url("/live.m3u8"), 30), 30)
    server.replies["live.m3u8"] = response(playlist("clip3.ts", first=3))
    with pytest.raises(OSError, match="2 segments left the playlist before they were read"):
        list(iter(lambda: reader.read(1 << 20), b""))


def test_a_playlist_on_this_machine(clips: Path, tmp_path: Path) -> None:
    assert watch(SourceSpec.parse(str(clips / "clip.m3u8"))) == (20, None)
    playlist_of_a_crash = (clips / "long.m3u8").read_text().replace("#EXT-X-ENDLIST", "")
    (clips / "crash.m3u8").write_text(playlist_of_a_crash)
    assert watch(SourceSpec.parse(str(clips / "crash.m3u8"))) == (125, None)
    for name in ("http://127.0.0.1:1/a.ts", "../clip0.ts", "/etc/passwd"):
        (tmp_path / "evil.m3u8").write_bytes(playlist(name, end=True))
        with pytest.raises(SourceError, match="which is no file in its own folder"):
            VideoSource(SourceSpec.parse(str(tmp_path / "evil.m3u8")), REQUEST)


# One text a way in which something that was not named could be reached; {} is its port.
REACHING = {
    "hls": b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:{}/a.ts\n#EXT-X-ENDLIST\n",
    "sdp": b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    b"m=video 50000 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n",
    "ffconcat": b"ffconcat version 1.0\nfile 'http://127.0.0.1:{}/a.ts'\n",
    "dash": b'<?xml version="1.0"?>\n<MPD><BaseURL>http://127.0.0.1:{}/</BaseURL></MPD>',
    "pls": b"[playlist]\nFile1=http://127.0.0.1:{}/a.ts\n",
    "hls after a mark": b"\xef\xbb\xbf\n#EXTM3U\nhttp://127.0.0.1:{}/a.ts\n",
}


@pytest.mark.parametrize("kind", REACHING)
def test_nothing_is_reached_through_what_a_reply_or_a_file_holds(
    kind: str, server: WebServer, tmp_path: Path
) -> None:
    with Scripted(lambda _: [response(b"x")]) as other:
        text = REACHING[kind].replace(b"{}", str(other.port).encode())
        server.replies["video.mp4"] = response(text, content_type="video/mp4")
        with pytest.raises(SourceError, match="the server sent a"):
            VideoSource(spec_of(server.url("/video.mp4")), REQUEST)
        (tmp_path / "video.mp4").write_bytes(text)
        with pytest.raises(SourceError, match="the file holds a"):
            VideoSource(SourceSpec.parse(str(tmp_path / "video.mp4")), REQUEST)
        assert other.connections == 0
    assert bound_udp_ports() == set()


def bound_udp_ports() -> set[int]:
    """Return the ports of 50000 on that anybody listens on, over UDP."""
    lines = Path("/proc/net/udp").read_text().splitlines()[1:]
    return {int(line.split()[1].rpartition(":")[2], 16) for line in lines} & {50000, 50001}


@pytest.mark.parametrize("what", ["redirection", "segment", "variant", "map"])
def test_another_port_is_asked_only_where_it_was_allowed(what: str, server: WebServer) -> None:
    with WebServer(server._folder) as other:
        away = other.url("/clip.ts")
        replies = {
            "redirection": response(status="302 Found", location=away),
            "segment": response(playlist(away, end=True)),
            "variant": response(
                f"#EXTM3U\n#EXT-X-STREAM-INF:A=1\n{other.url('/clip.m3u8')}".encode()
            ),
            "map": response(
                f'#EXTM3U\n#EXT-X-MAP:URI="{away}"\nparts0.m4s\n#EXT-X-ENDLIST'.encode()
            ),
        }
        server.replies["a.m3u8" if what != "redirection" else "a.ts"] = replies[what]
        url = server.url("/a.ts" if what == "redirection" else "/a.m3u8")
        with pytest.raises(SourceError, match=f"leads on to '127.0.0.1:{other.port}', which you"):
            VideoSource(spec_of(url), REQUEST)
        assert other.connections == 0
        if what != "map":  # which is no header of those segments
            allowed = (f"127.0.0.1:{other.port}",)
            assert watch(spec_of(url, allow_hosts=allowed)) == (20, None)


def test_a_redirection_on_the_same_server_is_followed_and_not_for_ever(server: WebServer) -> None:
    server.replies["a"] = response(status="301 Moved", location="/clip.ts")
    server.replies["b"] = response(status="302 Found", location="b")
    assert watch(spec_of(server.url("/a"))) == (20, None)
    with pytest.raises(SourceError, match="redirected more than 5 times"):
        VideoSource(spec_of(server.url("/b")), REQUEST)


def challenge(kind: str) -> bytes:
    return response(status="401 Unauthorized", www_authenticate=kind, content_length=0)


def test_basic_and_digest_credentials_are_sent_when_asked_for(clips: Path) -> None:
    clip = response((clips / "clip.ts").read_bytes())

    def basic(head: bytes) -> list[bytes]:
        token = base64.b64encode(b"me:p@ss/w:d").decode()
        asked = f"Authorization: Basic {token}".encode() in head
        return [clip if asked else challenge('Basic realm="cam"')]

    def digest(algorithm: str) -> object:
        def of(text: str) -> str:
            return hashlib.new(
                {"MD5": "md5", "SHA-256": "sha256"}[algorithm], text.encode()
            ).hexdigest()

        def answer(head: bytes) -> list[bytes]:
            sent = dict(re.findall(r'(\w+)="?([^",\r]+)', head.decode().partition("Digest ")[2]))
            secret, request = of("me:cam:p@ss/w:d"), of("GET:/x")
            chain = ":".join(sent.get(key, "") for key in ("nonce", "nc", "cnonce", "qop"))
            if sent.get("response") == of(f"{secret}:{chain}:{request}"):
                return [clip]
            return [challenge(f'Digest realm="cam", nonce="n", qop="auth", algorithm={algorithm}')]

        return answer

    for script in (basic, digest("MD5"), digest("SHA-256")):
        with Scripted(script) as server:  # type: ignore[arg-type]
            url = server.url("/x").replace("//", "//me:p%40ss%2Fw%3Ad@")
            assert watch(spec_of(url))[0] == 20
            assert b"Authorization" not in server.requests[0]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000, "its header is longer than 65536 bytes"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 20_000, "its header is longer than 65536 bytes"),
        (b"SSH-2.0-x\r\n\r\n", "it does not answer in HTTP"),
        (b"", "closed the connection without an answer"),
        (b"HTTP/1.1 500 X\r\n\r\n", "the server answered 500 Internal Server Error"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 5_000, "its header is longer than 65536 bytes"),
        (response(b"\x1f\x8b", content_encoding="gzip"), r"sends it packed \(gzip\), unasked"),
    ],
)
def test_answers_that_are_none(reply: bytes, reason: str) -> None:
    with Scripted(lambda _: [reply]) as server, pytest.raises(SourceError, match=reason):
        VideoSource(spec_of(server.url()), REQUEST)


def test_headers_that_cameras_get_wrong(clips: Path) -> None:
    body = (clips / "clip.ts").read_bytes()
    for head in (
        b"HTTP/1.0 200OK\r\nServer MJPG\r\nContent-Type: video/mp2t\r\n\r\n",
        b"ICY 200 OK\nContent-Type:video/mp2t\n\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Wait\r\nX: y\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ):
        with Scripted(lambda _, head=head: [head + body]) as server:  # type: ignore[misc]
            assert watch(spec_of(server.url())) == (20, "the stream ended")


def test_bytes_that_trickle_are_a_loss() -> None:
    """One byte now and then keeps no connection up."""

    def script(_: bytes) -> Iterator[bytes]:
        yield response()
        while not server.closing.wait(0.05):
            yield b"\x47"

    with Scripted(script) as server, pytest.raises(SourceError, match=r"no frame came for 0\.5 s"):
        VideoSource(spec_of(server.url()), CaptureRequest(timeout_s=0.5))
