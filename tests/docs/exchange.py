"""HTTP and gRPC on loopback, for replies that were recorded from a real server."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import grpc

HEADER_LENGTH = "Inference-Header-Content-Length"
"""How much of a body is JSON, before the tensors (extension_binary_data.md of Triton's server)."""

HttpReply = tuple[int, dict[str, str], bytes]
HttpAnswer = Callable[[str, str, dict[str, str], bytes], HttpReply]
GrpcAnswer = Callable[[str, bytes], bytes]


def meaning_of(headers: dict[str, str], body: bytes) -> tuple[Any, bytes]:
    """What a request over HTTP says, whatever the order of keys: its JSON, and its tensors."""
    length = int(headers.get(HEADER_LENGTH, len(body)))
    return json.loads(body[:length] or b"null"), body[length:]


@contextlib.contextmanager
def http_server(answer: HttpAnswer) -> Iterator[str]:
    """Answer requests by a function of method, path, headers and body; yield HOST:PORT."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        answering: ClassVar[Any] = staticmethod(answer)

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, headers, reply = self.answering(
                self.command, self.path, dict(self.headers.items()), body
            )
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(reply))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply)

        do_POST = do_GET  # noqa: N815  # the name that the class looks for

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def grpc_server(answer: GrpcAnswer) -> Iterator[str]:
    """Answer calls by a function of the method and the message's bytes; yield HOST:PORT."""

    class Handler(grpc.GenericRpcHandler):  # type: ignore[misc]  # has no types
        def service(self, details: Any) -> Any:
            method = details.method

            def call(message: bytes, context: Any) -> bytes:
                try:
                    return answer(method, message)
                except LookupError as error:
                    context.abort(grpc.StatusCode.NOT_FOUND, str(error))
                    raise

            return grpc.unary_unary_rpc_method_handler(call)

    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[Handler()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
