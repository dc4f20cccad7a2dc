"""check_rtsp: ask an RTSP server whether it would send us elsewhere, before FFmpeg asks it."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import time
from collections.abc import Sequence

from ..base import silence_of
from .http_body import MOST_HEAD_BYTES
from .reach import Reach, place_of, split_credentials

MOST_DESCRIPTION_BYTES = 1 << 20


def check_rtsp(address: str, timeout_s: float, allow_hosts: Sequence[str]) -> None:
    """Ask for a description, and raise OSError for an answer that must not reach FFmpeg.

    FFmpeg follows redirections to any host and port, and reads headers and descriptions of any
    length. A server that answers FFmpeg otherwise than us, a moment later, is not found out.
    """
    plain, _ = split_credentials(address)
    scheme, host, port = place_of(plain)
    deadline_s = time.monotonic() + timeout_s
    answer = bytearray()
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.create_connection((host, port), timeout_s))
        if scheme == "rtsps":
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            sock = stack.enter_context(context.wrap_socket(sock, server_hostname=host))
        request = f"DESCRIBE {plain} RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n\r\n"
        sock.sendall(request.encode())
        while b"\r\n\r\n" not in answer:
            sock.settimeout(max(0.001, deadline_s - time.monotonic()))
            try:
                data = sock.recv(1 << 16)
            except TimeoutError:
                raise TimeoutError(silence_of(timeout_s)) from None
            if not data:
                break
            answer += data
            if len(answer) > MOST_HEAD_BYTES:
                raise OSError(f"its header is longer than {MOST_HEAD_BYTES} bytes")
    head = bytes(answer).partition(b"\r\n\r\n")[0].decode("latin-1")
    length = re.search(r"(?im)^content-length\s*:\s*(\d{1,18})", head)
    if length is not None and int(length[1]) > MOST_DESCRIPTION_BYTES:
        raise OSError(f"its description is announced with {length[1]} bytes")
    target = re.search(r"(?im)^location\s*:\s*(\S+)", head)
    if re.match(r"RTSP/1\.\d 3\d\d", head) and target is not None:
        Reach(plain, allow_hosts).check(target[1])
