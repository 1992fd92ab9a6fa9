"""A stand-in for the Hugging Face Hub on loopback, as far as downloads need it.

It speaks to the real client: `/{repo}/resolve/{revision}/{file}` with X-Repo-Commit and ETag, large files behind a
redirect to another host with their SHA-256 as linked ETag, byte ranges, and the Hub's error codes.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

LARGE = (".safetensors", ".bin", ".pth", ".onnx")


@dataclass
class Repository:
    """One repository.

    Attributes:
        files: what its main branch holds.
        commit: of the main branch; older ones are in `history`.
        error: HTTP status and X-Error-Code that answer everything, e.g. (403, "GatedRepo").
        served: what is sent instead of a file's real content.
        large_in_git: large files have git's hash as ETag, as if nobody had set up the large-file store.
    """

    files: dict[str, bytes]
    commit: str = "a" * 40
    history: dict[str, dict[str, bytes]] = field(default_factory=dict)
    error: tuple[int, str] | None = None
    served: dict[str, bytes] = field(default_factory=dict)
    large_in_git: bool = False

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        if revision in ("main", self.commit):
            return self.commit, self.files
        return (revision, self.history[revision]) if revision in self.history else None


class HubServer:
    """Serves `repositories` while it is open.

    Attributes:
        requests: the "METHOD path" it was asked.
        authorized: the paths that came with a token.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[str] = []
        self.authorized: list[str] = []
        server = self

        class Handler(_Handler):
            hub = server

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    @property
    def port(self) -> int:
        return self._http.server_address[1]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nothing on the test's output."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")
        if "Authorization" in self.headers:
            self.hub.authorized.append(self.path)
        parts = self.path.partition("?")[0].strip("/").split("/")
        if "resolve" not in parts:
            return self._send(404, headers={})
        stored = parts[0] == "store"
        owner, name, _, revision, *rest = parts[1:] if stored else parts
        repository = self.hub.repositories.get(f"{owner}/{name}")
        if repository is None:
            return self._send(401, headers={"X-Error-Code": "RepoNotFound"})
        if repository.error is not None:
            status, code = repository.error
            return self._send(status, headers={"X-Error-Code": code})
        found = repository.at(revision)
        if found is None:
            return self._send(404, headers={"X-Error-Code": "RevisionNotFound"})
        commit, files = found
        path = "/".join(rest)
        if path not in files:
            return self._send(404, headers={"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        content = files[path]
        body = repository.served.get(path, content)
        if stored or not path.endswith(LARGE) or repository.large_in_git:
            git_hash = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            return self._send(200, body, headers={"X-Repo-Commit": commit, "ETag": f'"{git_hash}"'})
        # Another host name, so that the client must leave its token behind.
        location = f"http://localhost:{self.hub.port}/store/{owner}/{name}/resolve/{commit}/{path}"
        linked = {"X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Linked-Size": str(len(content))}
        return self._send(302, headers={"X-Repo-Commit": commit, "Location": location, **linked})

    def _send(self, status: int, body: bytes = b"", *, headers: dict[str, str]) -> None:
        requested = self.headers.get("Range")
        if status == 200 and requested:
            start = int(requested.removeprefix("bytes=").partition("-")[0])
            headers = {**headers, "Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}
            status, body = 206, body[start:]
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
