"""MjpegCamera: a network camera on the loopback, which sends ready JPEGs by the clock."""

from __future__ import annotations

import contextlib
import http.server
import itertools
import threading
import time
from collections.abc import Sequence

from ...runtime.core.lifecycle import Closing

_BOUNDARY = "frame"
CONTENT_TYPE = f"multipart/x-mixed-replace;boundary={_BOUNDARY}"


def part_of(picture: bytes) -> bytes:
    """Return a JPEG as one part of a stream of `CONTENT_TYPE`."""
    head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}"
    return head.encode() + b"\r\n\r\n" + picture + b"\r\n"


class MjpegCamera(Closing):
    """Serves `multipart/x-mixed-replace` to any number of readers until it is closed.

    It compresses nothing, so that it takes next to nothing from what is measured.

    Args:
        pictures: JPEG bytes, sent in turns.
        fps: Frames per second.

    Attributes:
        url: Where it is.
    """

    def __init__(self, pictures: Sequence[bytes], fps: float) -> None:
        closed = self._closed = threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", CONTENT_TYPE)
                self.end_headers()
                start_s = time.monotonic()
                with contextlib.suppress(OSError):  # the reader has gone
                    for number in itertools.count():
                        if closed.wait(start_s + number / fps - time.monotonic()):
                            return
                        self.wfile.write(part_of(pictures[number % len(pictures)]))

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
