"""HttpClient and HttpBody: what a web server sends, from the addresses that were allowed only."""

from __future__ import annotations

import functools
import hashlib
import http.client
import io
import re
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any

from ...pixels.files.image_kinds import KIND_BYTES
from ..base import silence_of
from .reach import Reach, split_credentials

MOST_HEAD_BYTES = 1 << 16
_MOST_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}
_BLANK = (b"\n\r\n", b"\n\n")
_INTERIM = re.compile(rb"HTTP/1\.[01] +1\d\d\b")  # RFC 9110, section 15.2
_PACKED = {"gzip", "x-gzip", "deflate", "compress", "br", "zstd"}
_SKIPPED_BYTES = 1 << 18
"""So much is read and dropped rather than asked for anew."""
_USER_AGENT = "motorVAE"


class Patience:
    """How long the next frame of a connection may take, however its bytes are spread over time."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self.received_ns = 0  # when bytes came last, on the monotonic clock
        self.begin()

    def begin(self) -> None:
        """Count from now on: a frame has come."""
        self._began_ns = self._frame_ns = time.monotonic_ns()

    def extend(self) -> None:
        """Count from now on what comes in pieces; `without_frame_s` goes on."""
        self._began_ns = time.monotonic_ns()

    @property
    def without_frame_s(self) -> float:
        """How long no frame has come."""
        return (time.monotonic_ns() - self._frame_ns) / 1e9

    def left_s(self) -> float:
        """Return how many seconds are left, or raise TimeoutError."""
        left_s = self.timeout_s - (time.monotonic_ns() - self._began_ns) / 1e9
        if left_s <= 0:
            raise self.error()
        return left_s

    def error(self) -> TimeoutError:
        """Return the error for silence, or for a trickle."""
        return TimeoutError(silence_of(self.timeout_s))


class _Raw(io.RawIOBase):
    """A connected socket's bytes, each wait for them within what patience is left."""

    def __init__(self, sock: Any, patience: Patience) -> None:
        self._sock, self._patience = sock, patience

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(self._patience.left_s())
        try:
            count: int = self._sock.recv_into(buffer)
        except TimeoutError:
            raise self._patience.error() from None
        self._patience.received_ns = time.monotonic_ns()
        return count

    def close(self) -> None:
        if not self.closed:
            self._sock.close()
        super().close()


class _Socket:
    """As much of a socket as `http.client` uses."""

    def __init__(self, sock: Any, patience: Patience) -> None:
        self.sendall = sock.sendall
        self._raw = _Raw(sock, patience)

    def makefile(self, *_: Any) -> io.BufferedReader:
        return io.BufferedReader(self._raw, 1 << 16)

    def close(self) -> None:
        """The response, which reads on, closes it."""


class _Response(http.client.HTTPResponse):
    """A response whose head is bounded, and may be as untidy as cameras send it."""

    def begin(self) -> None:
        stream, head, interim = self.fp, bytearray(), 0
        while not head.endswith(_BLANK):
            line = stream.readline(MOST_HEAD_BYTES)
            head += line
            if head.endswith(_BLANK) and _INTERIM.match(head):  # the answer is still to come
                interim += len(head)
                head.clear()
            if len(head) + interim >= MOST_HEAD_BYTES:
                raise http.client.HTTPException(
                    f"its header is longer than {MOST_HEAD_BYTES} bytes"
                )
            if not line:
                raise http.client.HTTPException("it closed the connection without an answer")
        first, *lines = head.splitlines(keepends=True)
        named = [line for line in lines if b":" in line or line[:1] in b" \t\r\n"]
        status = re.match(rb"(?:HTTP/1\.[01]|ICY) *(\d{3})(.*)", first)
        if status is None:
            raise http.client.HTTPException("it does not answer in HTTP")
        self.fp = io.BufferedReader(
            io.BytesIO(b"HTTP/1.0 %b %b\r\n" % (status[1], status[2].strip()) + b"".join(named))
        )
        super().begin()
        self.fp = stream


def _connection(
    kind: type[http.client.HTTPConnection], patience: Patience
) -> Callable[..., http.client.HTTPConnection]:
    class Connection(kind):  # type: ignore[misc, valid-type]
        response_class = _Response

        def connect(self) -> None:
            self.timeout = patience.left_s()
            super().connect()
            self.sock: Any = _Socket(self.sock, patience)

    return Connection


class _Http(urllib.request.HTTPHandler):
    def __init__(self, patience: Patience) -> None:
        super().__init__()
        self._open = functools.partial(
            self.do_open, _connection(http.client.HTTPConnection, patience)
        )

    def http_open(self, request: urllib.request.Request) -> Any:
        return self._open(request)


class _Https(urllib.request.HTTPSHandler):
    """Certificates are not checked: those of cameras are self-signed, if not expired."""

    def __init__(self, patience: Patience) -> None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        super().__init__(context=context)
        self._open = functools.partial(
            self.do_open, _connection(http.client.HTTPSConnection, patience), context=context
        )

    def https_open(self, request: urllib.request.Request) -> Any:
        return self._open(request)


class _Digest(urllib.request.HTTPDigestAuthHandler):
    def get_algorithm_impls(self, algorithm: str) -> Any:
        if algorithm.upper() != "SHA-256":
            return super().get_algorithm_impls(algorithm)

        def digest(text: str) -> str:
            return hashlib.sha256(text.encode()).hexdigest()

        return digest, lambda secret, data: digest(f"{secret}:{data}")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Leaves them to `HttpClient.open`, which asks whether the address is allowed."""

    def redirect_request(self, *_: Any) -> None:
        """Make no request."""


class HttpClient:
    """Fetches from the host and port of one address, and from hosts that were allowed by name.

    Credentials in the address answer a basic or digest challenge of that host and port alone. A
    change from http to https of the same host, at their usual ports, is no change of host.
    Nothing takes longer than `patience` has left.

    Args:
        address: The URL that the user named.
        timeout_s: How long an answer, and then each frame, may take.
        allow_hosts: Further hosts, as `HOST` or `HOST:PORT`.
    """

    def __init__(self, address: str, timeout_s: float, allow_hosts: Sequence[str] = ()) -> None:
        self.patience = Patience(timeout_s)
        self.address, credentials = split_credentials(address)
        self._reach = Reach(self.address, allow_hosts)
        passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        handlers: list[urllib.request.BaseHandler] = [
            _Http(self.patience),
            _Https(self.patience),
            _NoRedirects(),
        ]
        if credentials is not None:
            user, _, password = map(urllib.parse.unquote, credentials.partition(":"))
            _, _, place = self.address.partition("://")
            for scheme in ("http", "https"):
                passwords.add_password(
                    None, f"{scheme}://{place.partition('/')[0]}/", user, password
                )
            handlers += [_Digest(passwords), urllib.request.HTTPBasicAuthHandler(passwords)]
        self._opener = urllib.request.build_opener(*handlers)

    def get(self, address: str = "", *, start: int = 0, end: int | None = None) -> HttpBody:
        """Ask for a resource, or for its bytes from `start` up to `end`; OSError where refused."""
        return HttpBody(self, *self.open(address or self.address, start, end), start)

    def open(
        self, address: str, start: int = 0, end: int | None = None
    ) -> tuple[str, http.client.HTTPResponse]:
        """Return the address after redirections, and the response of the server there.

        It is asked for a part also where that is all: not every server that sends parts says so.
        """
        for _ in range(_MOST_REDIRECTS):
            self._reach.check(address)
            request = urllib.request.Request(_quoted(address))  # noqa: S310  # checked above
            request.add_header("User-Agent", _USER_AGENT)
            last = "" if end is None else end - 1
            request.add_header("Range", f"bytes={start}-{last}")
            try:
                response = self._opener.open(request)
            except urllib.error.HTTPError as error:
                target = error.headers.get("Location")
                error.close()
                if error.code not in _REDIRECTS or not target:
                    known = http.client.responses.get(error.code, "")
                    raise OSError(f"the server answered {error.code} {known}".rstrip()) from None
                address = urllib.parse.urljoin(address, target)
            except urllib.error.URLError as error:
                if isinstance(error.reason, OSError):
                    raise error.reason from None
                raise OSError(str(error.reason)) from None
            except http.client.HTTPException as error:
                raise OSError(f"what the server sent is wrong: {error}") from None
            else:
                packing = response.headers.get("Content-Encoding", "").strip().lower()
                if packing in _PACKED:
                    response.close()
                    raise OSError(f"the server sends it packed ({packing}), unasked")
                if start and response.status != http.client.PARTIAL_CONTENT:
                    response.close()
                    raise OSError("the server does not send parts of a file")
                return address, response
        raise OSError(f"the server redirected more than {_MOST_REDIRECTS} times")


class HttpBody:
    """The body of a response, as a file; what a server lets be read in parts can be sought in.

    Attributes:
        length: Its length in bytes, or None where that was not announced.
        content_type: The media type with its parameters, as sent.
        address: Where it came from, after redirections.
    """

    def __init__(self, client: HttpClient, address: str, response: Any, start: int) -> None:
        self.name, self.address, self._client = urllib.parse.urlsplit(address).path, address, client
        self._response, self._position, self._wanted = response, start, start
        self.content_type: str = response.headers.get("Content-Type") or ""
        self.length = self._end = _end_of(response, start)
        accepted = response.headers.get("Accept-Ranges", "")
        sends_parts = "bytes" in accepted or response.status == http.client.PARTIAL_CONTENT
        self._seekable = self._end is not None and sends_parts
        self._ahead = b""

    @property
    def received_ns(self) -> int:
        """When bytes came last, on the monotonic clock."""
        return self._client.patience.received_ns

    def peek(self, size: int = KIND_BYTES) -> bytes:
        """Return the first bytes, as many as say what comes, and leave them to be read."""
        while len(self._ahead) < size and (data := self._receive(1 << 12)):
            self._ahead += data
        return self._ahead

    def read(self, size: int = 1 << 16) -> bytes:
        """Return what is there, up to `size` bytes; wait where there is nothing; b"" at the end."""
        if self.length is not None and self._wanted >= self.length:
            return b""
        if self._wanted != self._position:
            self._go()
        data = self._ahead[:size] or self._receive(size)
        self._ahead = self._ahead[size:]
        self._position += len(data)
        self._wanted = self._position
        if not data and self._end is not None and self._position < self._end:
            raise OSError(f"the connection closed after {self._position} of {self._end} bytes")
        return data

    def readable(self) -> bool:
        """Whether it can be read."""
        return True

    def seekable(self) -> bool:
        """Whether `seek` may be called."""
        return self._seekable

    def seek(self, offset: int, whence: int = 0) -> int:
        """Choose where `read` goes on."""
        self._wanted = offset + (0, self._wanted, self.length or 0)[whence]
        return self._wanted

    def tell(self) -> int:
        """Return where `read` goes on."""
        return self._wanted

    def close(self) -> None:
        """Close the connection."""
        self._response.close()

    def _receive(self, size: int) -> bytes:
        try:
            data: bytes = self._response.read1(size)
        except http.client.HTTPException as error:
            raise OSError(f"what the server sent is wrong: {type(error).__name__}") from None
        return data

    def _go(self) -> None:
        """Read on to where it was sought, or ask for the rest anew."""
        if 0 < self._wanted - self._position <= _SKIPPED_BYTES:
            while (left := self._wanted - self._position) > 0:
                data = self._ahead[:left] or self._receive(left)
                if not data:
                    return
                self._ahead = self._ahead[left:]
                self._position += len(data)
            return
        self._response.close()
        self._position, self._ahead = self._wanted, b""
        self.address, self._response = self._client.open(self.address, self._wanted)
        self._end = _end_of(self._response, self._wanted)


def _end_of(response: Any, start: int) -> int | None:
    headers = response.headers
    length = headers.get("Content-Length", "").strip()
    if "chunked" in headers.get("Transfer-Encoding", "").lower():
        return None
    return start + int(length) if re.fullmatch(r"\d{1,18}", length) else None


def _quoted(address: str) -> str:
    return urllib.parse.quote(address.partition("#")[0], safe="!$%&'()*+,/:;=?@[]~")
