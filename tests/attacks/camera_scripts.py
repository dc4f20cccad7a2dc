"""What hostile cameras send: a script each, by its name, for cameras.py."""

from __future__ import annotations

import io
import os
import random
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import av
import cv2
import numpy as np

UDP_PORT = 50000
MIXED = "Content-Type: multipart/x-mixed-replace; boundary=frame"
CHUNK = bytes(1 << 20)


def picture(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (48, 64, 3), np.uint8)
    return cv2.imencode(".jpg", noise)[1].tobytes()


PICTURES = [picture(seed) for seed in range(6)]


@dataclass
class Attack:
    """What a script may use."""

    other: int  # the port of the server that nobody named
    closing: threading.Event
    rng: random.Random

    def wait(self) -> None:
        self.closing.wait(60)


Script = Callable[[Attack], Iterable[bytes]]
SCRIPTS: dict[str, tuple[str, Script]] = {}
"""By name: the path that is asked for, with its scheme, and the script."""


def script(path: str, **named: Script) -> None:
    for name, one in named.items():
        SCRIPTS[name.replace("_", " ")] = (path, one)


def http(body: bytes = b"", *headers: str, status: str = "200 OK") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode() + body


def part(body: bytes, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {size}\r\n\r\n"
    return head.encode() + body + b"\r\n"


def recorded(container: str, mark: bytes, instead: bytes) -> bytes:
    """Return a recording up to its first frame, whose mark and size are others."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for number in range(20):
            noise = np.random.default_rng(number).integers(0, 255, (48, 64, 3), np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(noise, "rgb24")))
        out.mux(stream.encode())
    data = file.getvalue()
    at = data.rindex(mark, 0, data.index(b"\xff\xd8\xff"))
    return data[:at] + instead + b"\xff\xd8\xff"


GOOD = http(b"".join(map(part, PICTURES)), MIXED)


def endless(*first: bytes, piece: bytes = CHUNK) -> Script:
    def run(attack: Attack) -> Iterator[bytes]:
        yield from first
        while not attack.closing.is_set():
            yield piece

    run.good = GOOD in first  # type: ignore[attr-defined]
    return run


def trickle(*first: bytes, piece: bytes = b"x") -> Script:
    def run(attack: Attack) -> Iterator[bytes]:
        yield from first
        while not attack.closing.wait(0.1):
            yield piece

    return run


def silent(*first: bytes) -> Script:
    def run(attack: Attack) -> Iterator[bytes]:
        yield from first
        attack.wait()

    return run


def once(*pieces: bytes) -> Script:
    return lambda _: pieces


def whole(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    return http(body, f"Content-Length: {len(body)}", *headers, status=status)


def reaching(text: str, *headers: str, status: str = "200 OK") -> Script:
    """Name the other server; @ is its port."""
    return lambda attack: [
        whole(
            text.replace("@", str(attack.other)).encode(),
            *(header.replace("@", str(attack.other)) for header in headers),
            status=status,
        )
    ]


SDP = f"""v=0
o=- 0 0 IN IP4 127.0.0.1
s=-
c=IN IP4 127.0.0.1
t=0 0
m=video {UDP_PORT} RTP/AVP 96
a=rtpmap:96 H264/90000
a=control:track1
""".replace("\n", "\r\n")
AWAY = "http://127.0.0.1:@/a.ts"
HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n"

script(
    "http:/",
    part_of_2_GB=endless(GOOD, part(PICTURES[0][:-2], 2**31)[:-2]),
    endless_part_without_length=endless(
        GOOD, b"--frame\r\nContent-Type: image/jpeg\r\n\r\n", PICTURES[0][:-2]
    ),
    endless_part_of_ones=endless(
        GOOD, part(PICTURES[0][:300], 2**40)[:-2], piece=b"\xff" * (1 << 20)
    ),
    endless_JPEG=endless(http(PICTURES[0][:-2], "Content-Type: image/jpeg")),
    endless_JPEG_segments=endless(
        http(b"\xff\xd8", "Content-Type: image/jpeg"), piece=b"\xff\xe1\x00\x04ab" * 100_000
    ),
    endless_comment=endless(http(b"\xff\xd8\xff\xfe\xff\xff", "Content-Type: image/jpeg")),
    endless_text_between_parts=endless(GOOD, piece=b"Content-Type: x\n" * 60_000),
    endless_noise_between_parts=endless(GOOD, piece=os.urandom(1 << 20).replace(b"\xff", b"")),
    boundaries_only=endless(GOOD, piece=b"--frame\r\n" * 100_000),
    empty_parts=endless(GOOD, piece=b"--frame\r\nContent-Length: 0\r\n\r\n" * 10_000),
    parts_of_text=endless(GOOD, piece=part(b"this is no picture") * 1000),
    half_a_picture_then_silence=silent(GOOD, part(PICTURES[0])[:-500]),
    half_a_picture_then_a_trickle=trickle(GOOD, part(PICTURES[0])[:-500]),
    silence_from_the_start=silent(),
    silence_after_the_header=silent(http(b"", MIXED)),
    a_trickle_of_a_header=trickle(b"HTTP/1.1 200 OK\r\n", piece=b"X: y\r\n"),
    an_endless_header_line=endless(b"HTTP/1.1 200 OK\r\nX: ", piece=b"a" * (1 << 20)),
    endless_header_lines=endless(b"HTTP/1.1 200 OK\r\n", piece=b"X: y\r\n" * 100_000),
    an_endless_status=endless(b"HTTP/1.1 200 ", piece=b"a" * (1 << 20)),
    no_HTTP=once(b"SSH-2.0-OpenSSH\r\n\r\n"),
    nothing=once(),
    nulls=endless(b"\0"),
    a_status_of_999=once(http(status="999 \x1b[2J\x1b]0;owned\x07")),
    a_boundary_of_60_kB=once(http(b"", MIXED + "x" * 60_000) + b"--frame"),
    a_length_that_is_negative=once(
        http(b"".join(map(part, PICTURES)), MIXED, "Content-Length: -1")
    ),
    a_length_that_is_huge=silent(http(b"x", "Content-Length: 999999999999999999")),
    a_chunk_that_is_huge=endless(http(b"FFFFFFFFFFFFFFF\r\n", MIXED, "Transfer-Encoding: chunked")),
    a_chunk_that_is_negative=once(http(b"-5\r\nabc", MIXED, "Transfer-Encoding: chunked")),
    an_endless_chunk_size=endless(
        http(b"", MIXED, "Transfer-Encoding: chunked"), piece=b"0" * (1 << 20)
    ),
    an_endless_refusal=endless(http(b"", status="401 Unauthorized")),
    an_endless_redirection=endless(http(b"", "Location: /b", status="302 Found")),
    a_challenge_for_ever=once(
        http(b"", 'WWW-Authenticate: Digest realm="a", nonce="b"', status="401 No")
    ),
    a_challenge_of_another_kind=once(http(b"", "WWW-Authenticate: Bearer", status="401 No")),
    a_redirection_away=reaching("", f"Location: {AWAY}", status="302 Found"),
    a_redirection_to_a_file=once(http(b"", "Location: file:///etc/passwd", status="302 Found")),
    a_redirection_to_nowhere=once(http(b"", "Location: http://[::bad", status="302 Found")),
    a_redirection_to_itself=once(http(b"", "Location: /", status="302 Found")),
    an_SDP=once(whole(SDP.encode(), "Content-Type: application/sdp")),
    an_SDP_without_a_type=once(whole(SDP.encode())),
    a_playlist_that_nobody_asked_for=reaching(f"{HLS}#EXTINF:1,\n{AWAY}\n#EXT-X-ENDLIST\n"),
    a_playlist_as_video=reaching(f"{HLS}#EXTINF:1,\n{AWAY}\n", "Content-Type: video/mp4"),
    a_list_of_files=reaching(f"ffconcat version 1.0\nfile '{AWAY}'\n"),
    a_DASH_manifest=reaching(f"<?xml version='1.0'?><MPD><BaseURL>{AWAY}</BaseURL></MPD>"),
    an_endless_AVI_chunk=endless(http(recorded("avi", b"00dc", b"00dc\xf0\xff\xff\x7f"))),
    an_endless_Matroska_block=endless(
        http(recorded("matroska", b"\xa3", b"\xa3\x01\0\0\0\x7f\xff\xff\xff\x81\0\0\x80"))
    ),
    an_endless_transport_stream=endless(
        http(b"", "Content-Type: video/mp2t"), piece=(b"\x47\x01\x00\x10" + bytes(184)) * 5000
    ),
    an_endless_H264_unit=endless(http(b"\0\0\0\1\x67\x42\0\x1f\xe9\1\x40\x7b\0\0\0\1\x65\x88")),
    an_endless_MP4_header=endless(http(b"\0\0\0\x18ftypisom\0\0\0\0isomiso2\x7f\xff\xff\xffmoov")),
    an_endless_FLV_tag=endless(
        http(b"FLV\1\1\0\0\0\x09\0\0\0\0\x09\xff\xff\xff"), piece=b"\xff" * (1 << 20)
    ),
    an_endless_PNG=endless(
        http(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\xff\xff\0\0\xff\xff\x08\2\0\0\0")
    ),
    a_picture_of_65500_pixels=once(
        http(
            b"".join(
                part(
                    re.sub(
                        rb"(\xff\xc0..\x08)....",
                        lambda found: found[1] + b"\xff\xdc" * 2,
                        one,
                        flags=re.DOTALL,
                    )
                )
                for one in PICTURES
            ),
            MIXED,
        )
    ),
)
script(
    "http:/live.m3u8",
    a_playlist_of_millions=once(http(HLS.encode() + b"a\n" * 4_000_000)),
    an_endless_playlist=endless(http(HLS.encode()), piece=b"#\n" * 500_000),
    a_trickle_of_a_playlist=trickle(http(HLS.encode())),
    a_playlist_of_itself=once(http(b"#EXTM3U\n#EXT-X-STREAM-INF:B=1\nlive.m3u8\n")),
    a_segment_away=reaching(f"{HLS}#EXTINF:1,\n{AWAY}\n#EXT-X-ENDLIST\n"),
    a_variant_away=reaching(f"#EXTM3U\n#EXT-X-STREAM-INF:B=1\n{AWAY}\n"),
    a_key_away=reaching(f'{HLS}#EXT-X-KEY:METHOD=AES-128,URI="{AWAY}"\n#EXTINF:1,\na.ts\n'),
    a_map_away=reaching(f'{HLS}#EXT-X-MAP:URI="{AWAY}"\n#EXTINF:1,\na.mp4\n'),
    a_segment_on_disk=once(http(f"{HLS}#EXTINF:1,\nfile:///etc/passwd\n".encode())),
    a_segment_in_a_program=once(
        http(f"{HLS}#EXTINF:1,\nsubfile,,start,0,end,9,,:/etc/passwd\n".encode())
    ),
    a_target_of_ages=once(http(b"#EXTM3U\n#EXT-X-TARGETDURATION:99999999999999999999\n")),
    numbers_that_are_none=once(
        http(b"#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:-x\n#EXT-X-BYTERANGE:a@b\nx\n")
    ),
    segments_that_are_playlists=once(
        http(f"{HLS}#EXTINF:1,\nlive.m3u8\n#EXT-X-ENDLIST\n".encode())
    ),
)


def rtsp(*media: bytes, sdp: str = SDP, describe: bytes = b"", forever: bool = False) -> Script:
    """Answer as a camera does up to the streaming, which is `media`; `describe` stands for all."""

    def run(attack: Attack) -> Iterator[bytes]:
        del attack
        yield b""

    run.rtsp = (media, sdp, describe, forever)  # type: ignore[attr-defined]
    return run


def rtp(sequence: int, payload: bytes, kind: int = 96) -> bytes:
    packet = b"\x80" + bytes([kind]) + sequence.to_bytes(2, "big") + bytes(8) + payload
    return b"$\0" + len(packet).to_bytes(2, "big") + packet


script(
    "rtsp:/",
    RTSP_of_noise=rtsp(describe=bytes(range(256)) * 100),
    RTSP_redirection_away=rtsp(
        describe=b"RTSP/1.0 302 Moved\r\nCSeq: 1\r\nLocation: rtsp://127.0.0.1:@/\r\n\r\n"
    ),
    RTSP_endless_header=rtsp(describe=b"RTSP/1.0 200 OK\r\n" + b"X: y\r\n" * 100_000, forever=True),
    RTSP_endless_header_line=rtsp(
        describe=b"RTSP/1.0 200 OK\r\nX: " + b"a" * 1_000_000, forever=True
    ),
    RTSP_description_of_2_GB=rtsp(
        describe=b"RTSP/1.0 200 OK\r\nCSeq: 2\r\nContent-Type: application/sdp\r\n"
        + b"Content-Length: 2147483000\r\n\r\n"
        + b"v=0\r\n" * 100_000,
        forever=True,
    ),
    RTSP_of_many_media=rtsp(sdp=SDP + "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n" * 4000),
    RTSP_silence=rtsp(),
    RTSP_garbage_media=rtsp(os.urandom(1 << 20), forever=True),
    RTSP_endless_fragments=rtsp(
        b"".join(rtp(n % 65536, b"\x7c\x85" + bytes(1400)) for n in range(700)), forever=True
    ),
    RTSP_empty_units=rtsp(b"".join(rtp(n, b"") for n in range(1000)), forever=True),
    RTSP_long_parameters=rtsp(sdp=SDP + "a=fmtp:96 sprop-parameter-sets=" + "Z" * 200_000 + "\r\n"),
)
script("rtmp:/live", RTMP_of_noise=endless(bytes(range(256)) * 12), RTMP_silence=silent(b"\3"))


def mutated(attack: Attack) -> Iterable[bytes]:
    """A good camera, six pictures at a time, with bytes changed, cut out, doubled and moved."""
    rng, data = attack.rng, bytearray(GOOD * 3)
    for _ in range(rng.randint(1, 60)):
        at, size = rng.randrange(len(data)), rng.choice([1, 2, 30, 500])
        kind = rng.randrange(4)
        if kind == 0:
            data[at] = rng.randrange(256)
        elif kind == 1:
            del data[at : at + size]
        else:
            taken = data[at : at + size] if kind == 2 else rng.randbytes(size)
            data[rng.randrange(len(data)) : 0] = taken
    cut = rng.randrange(1, 4000)
    yield from (bytes(data[at : at + cut]) for at in range(0, len(data), cut))
