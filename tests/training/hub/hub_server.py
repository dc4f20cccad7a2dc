"""A small stand-in for Hugging Face Hub: repositories of files in memory, over HTTP."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """Repositories by name, and what was asked for."""

    address: str = ""
    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)
    private: dict[str, Any] = field(default_factory=dict)


@contextlib.contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self, content: bytes, status: int = 200, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def _json(self, content: object, status: int = 200, **headers: str) -> None:
            self._answer(json.dumps(content).encode(), status, **headers)

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = unquote(self.path.partition("?")[0])
            for repo, files in hub.repos.items():
                if path.startswith(f"/api/models/{repo}/tree/"):
                    self._json(
                        [
                            {"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
                            for name, content in files.items()
                        ]
                    )
                    return
                if path.startswith(f"/api/models/{repo}"):
                    listed = [{"rfilename": name} for name in files]
                    self._json({"id": repo, "sha": COMMIT, "siblings": listed})
                    return
                head, resolve, rest = path.partition(f"/{repo}/resolve/")
                name = rest.partition("/")[2]
                if resolve and not head and name in files:
                    if self.command == "GET":
                        hub.fetched.append(name)
                    etag = hashlib.sha256(files[name]).hexdigest()
                    self._answer(files[name], ETag=f'"{etag}"', X_Repo_Commit=COMMIT)
                    return
            self._json({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            if self.path == "/api/repos/create":
                asked = json.loads(body)
                repo = "/".join(filter(None, (asked.get("organization"), asked["name"])))
                hub.repos.setdefault(repo, {})
                hub.private[repo] = asked.get("private") or asked.get("visibility") == "private"
                self._json({"url": f"{hub.address}/{repo}"})
            elif self.path == "/api/validate-yaml":
                self._json({"errors": [], "warnings": []})
            elif "/preupload/" in self.path:
                asked = json.loads(body)["files"]
                plain = {"uploadMode": "regular", "shouldIgnore": False}
                self._json({"files": [{"path": one["path"], **plain} for one in asked]})
            elif "/commit/" in self.path:
                repo = self.path.removeprefix("/api/models/").partition("/commit/")[0]
                for line in body.splitlines():
                    one = json.loads(line)
                    if one["key"] == "file":
                        content = base64.b64decode(one["value"]["content"])
                        hub.repos[repo][one["value"]["path"]] = content
                url = f"{hub.address}/{repo}/commit/{COMMIT}"
                self._json({"commitUrl": url, "commitOid": COMMIT, "success": True})
            else:
                self._json({"error": "not found"}, 404)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.address = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield hub
        server.shutdown()
        thread.join()
