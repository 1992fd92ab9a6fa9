"""A stand-in for the Hugging Face Hub on loopback, as far as downloads and uploads need it.

It speaks to the real client: `/{repo}/resolve/{revision}/{file}` with X-Repo-Commit and ETag, large files behind a
redirect to another host with their SHA-256 as linked ETag, byte ranges, the info and tree APIs, the creation of
repositories and branches, commits with files in git or in the large-file store, and the Hub's error codes. `Faults`
makes it fail in the ways that networks and servers do.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = (".safetensors", ".bin", ".pth", ".onnx")
SECRET = "hf_writer"  # the token with write access


@dataclass
class Repository:
    """One repository.

    Attributes:
        files: Files of the main branch.
        commit: Commit of the main branch; older commits are in `history`.
        error: HTTP status and X-Error-Code of every response, e.g. (403, "GatedRepo").
        served: Content that is sent instead of a file's real content.
        large_in_git: Whether large files have git's hash as ETag, as without a large-file store.
        private: Whether only requests with a token see it.
        history: Files of other commits.
        branches: Branches besides main, and the commit of each.
        headers: Headers that are sent instead of the right ones, such as a forged ETag.
    """

    files: dict[str, bytes]
    commit: str = "a" * 40
    history: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    error: tuple[int, str] | None = None
    served: dict[str, bytes] = field(default_factory=dict)
    large_in_git: bool = False
    private: bool = False
    headers: dict[str, str] = field(default_factory=dict)

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        if revision in ("main", self.commit):
            return self.commit, self.files
        revision = self.branches.get(revision, revision)
        return (revision, self.history[revision]) if revision in self.history else None


@dataclass
class Faults:
    """Faults of the server, each with the number of times it occurs.

    Attributes:
        statuses: Status codes of the next responses, instead of the right ones.
        cuts: Number of downloads of large files that break off in the middle.
        stalls: Number of downloads of large files that stop for `stall_s` seconds after a third, or at once if `mute`.
    """

    statuses: list[int] = field(default_factory=list)
    cuts: int = 0
    stalls: int = 0
    stall_s: float = 1.0
    mute: bool = False

    def take(self, name: str) -> bool:
        left: int = getattr(self, name)
        setattr(self, name, max(left - 1, 0))
        return left > 0


class HubServer:
    """Serves `repositories` while it is open.

    Attributes:
        requests: the "METHOD path" it was asked.
        ranges: the Range headers that came with them.
        authorized: the paths that came with a token.
        store: large files that were uploaded, by SHA-256.
        messages: of the commits, by their hash.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.faults = Faults()
        self.requests: list[str] = []
        self.ranges: list[str] = []
        self.authorized: list[str] = []
        self.store: dict[str, bytes] = {}
        self.messages: dict[str, str] = {}
        server = self

        class Handler(_Handler):
            hub = server

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    @property
    def port(self) -> int:
        return self._http.server_address[1]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What another process needs to take this for the Hub."""
        return {"HF_ENDPOINT": self.endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nothing on the test's output."""

    def do_HEAD(self) -> None:
        self._respond()

    def do_GET(self) -> None:
        self._respond()

    def do_POST(self) -> None:
        self._respond()

    def do_PUT(self) -> None:
        self._respond()

    def _respond(self) -> None:
        hub = self.hub
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.body = self._chunks()
        hub.requests.append(f"{self.command} {self.path}")
        if "Range" in self.headers:
            hub.ranges.append(self.headers["Range"])
        if "Authorization" in self.headers:
            hub.authorized.append(self.path)
        if hub.faults.statuses:
            return self._send(hub.faults.statuses.pop(0), headers={"Retry-After": "0"})
        url = urlsplit(self.path)
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        if parts[0] == "api":
            return self._api(parts[1:], parse_qs(url.query))
        if parts[0] == "upload":
            hub.store[parts[1]] = self.body
            return self._send(200, headers={})
        if parts[-3:] == ["lfs", "objects", "batch"]:
            return self._batch()
        if "resolve" in parts:
            return self._resolve(parts)
        return self._send(404, headers={})

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    # Downloads

    def _resolve(self, parts: list[str]) -> None:
        stored = parts[0] == "store"
        owner, name, _, revision, *rest = parts[1:] if stored else parts
        repository = self._repository(f"{owner}/{name}", signed=stored)
        if repository is None:
            return None
        found = repository.at(revision)
        if found is None:
            return self._send(404, headers={"X-Error-Code": "RevisionNotFound"})
        commit, files = found
        path = "/".join(rest)
        if path not in files:
            return self._send(404, headers={"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        content = files[path]
        body = repository.served.get(path, content)
        large = path.endswith(LARGE) and not repository.large_in_git
        if stored or not large:
            headers = {"X-Repo-Commit": commit, "ETag": f'"{git_hash(content)}"', **repository.headers}
            return self._send(200, body, headers=headers, large=stored)
        # Another host name, so that the client must leave its token behind.
        location = f"http://localhost:{self.hub.port}/store/{owner}/{name}/resolve/{commit}/{path}"
        linked = {"X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Linked-Size": str(len(content))}
        headers = {"X-Repo-Commit": commit, "Location": location, **linked, **repository.headers}
        return self._send(302, headers=headers)

    def _repository(self, repo_id: str, *, signed: bool = False) -> Repository | None:
        """None after an error was sent. A signed address of the store needs no token."""
        repository = self.hub.repositories.get(repo_id)
        if repository is None or (repository.private and not signed and "Authorization" not in self.headers):
            self._send(401 if "Authorization" not in self.headers else 404, headers={"X-Error-Code": "RepoNotFound"})
            return None
        if repository.error is not None:
            status, code = repository.error
            self._send(status, headers={"X-Error-Code": code})
            return None
        return repository

    # The API

    def _api(self, parts: list[str], query: dict[str, list[str]]) -> None:
        if parts == ["validate-yaml"]:
            return self._json({"warnings": [], "errors": []})
        if parts == ["whoami-v2"]:
            return self._json({"name": "org", "type": "user"})
        writes = self.command == "POST" and parts[3:4] != ["paths-info"]
        if writes and self.headers.get("Authorization") != f"Bearer {SECRET}":
            status = 403 if "Authorization" in self.headers else 401
            return self._send(status, headers={"X-Error-Message": "You don't have the rights to create a model"})
        if parts == ["repos", "create"]:
            return self._create()
        repo_id, action, rest = "/".join(parts[1:3]), parts[3:4], parts[4:]
        repository = self._repository(repo_id)
        if repository is None:
            return None
        if action == ["branch"]:
            taken = rest[0] in repository.branches
            repository.history.setdefault(repository.commit, repository.files)
            repository.branches.setdefault(rest[0], repository.commit)
            return self._send(409 if taken else 200, headers={})
        found = repository.at("main" if not rest else rest[0])
        if found is None:
            return self._send(404, headers={"X-Error-Code": "RevisionNotFound"})
        commit, files = found
        if not action or action == ["revision"]:
            siblings = [{"rfilename": name} for name in files]
            information = {"id": repo_id, "sha": commit, "private": repository.private, "siblings": siblings}
            return self._json({"_id": "1", **information})
        if action == ["tree"]:
            return self._json([self._tree_entry(name, content) for name, content in files.items()])
        if action == ["preupload"]:
            return self._preupload(files)
        if action == ["commit"]:
            return self._commit(repo_id, repository, rest[0], pull_request="create_pr" in query)
        return self._send(404, headers={})

    def _tree_entry(self, name: str, content: bytes) -> dict[str, Any]:
        entry: dict[str, Any] = {"type": "file", "path": name, "size": len(content), "oid": git_hash(content)}
        if name.endswith(LARGE):
            digest = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 134}
        return entry

    def _create(self) -> None:
        values = json.loads(self.body)
        repo_id = f"{values.get('organization') or 'org'}/{values['name']}"
        response = {"url": f"{self.hub.endpoint}/{repo_id}", "name": repo_id, "id": repo_id}
        if repo_id in self.hub.repositories:
            return self._json(response, status=409)
        private = values.get("private") is True or values.get("visibility") == "private"  # older and newer clients
        self.hub.repositories[repo_id] = Repository({}, commit="0" * 40, private=private)
        return self._json(response)

    def _preupload(self, files: dict[str, bytes]) -> None:
        modes = []
        for file in json.loads(self.body)["files"]:
            path, content = file["path"], files.get(file["path"])
            mode: dict[str, Any] = {"path": path, "shouldIgnore": False}
            mode["uploadMode"] = "lfs" if path.endswith(LARGE) else "regular"
            if content is not None:
                large = path.endswith(LARGE)
                mode["oid"] = hashlib.sha256(content).hexdigest() if large else git_hash(content)
            modes.append(mode)
        self._json({"files": modes})

    def _batch(self) -> None:
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            response = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.hub.store:
                response["actions"] = {"upload": {"href": f"http://localhost:{self.hub.port}/upload/{wanted['oid']}"}}
            objects.append(response)
        self._json({"transfer": "basic", "objects": objects})

    def _commit(self, repo_id: str, repository: Repository, branch: str, *, pull_request: bool) -> None:
        lines = [json.loads(line) for line in self.body.splitlines()]
        _, files = repository.at(branch) or ("", {})
        files = dict(files)
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                content = self.hub.store[value["oid"]]
                assert hashlib.sha256(content).hexdigest() == value["oid"]
                files[value["path"]] = content
        commit = hashlib.sha1(self.body + repository.commit.encode()).hexdigest()
        self.hub.messages[commit] = lines[0]["value"]["summary"]
        if pull_request:
            branch = "refs/pr/1"
        if branch == "main":
            repository.history[repository.commit] = repository.files
            repository.commit, repository.files = commit, files
        else:
            repository.branches[branch] = commit
            repository.history[commit] = files
        url = f"{self.hub.endpoint}/{repo_id}"
        request = {"pullRequestUrl": f"{url}/discussions/1"} if pull_request else {}
        self._json({"commitUrl": f"{url}/commit/{commit}", "commitOid": commit, **request})

    def _json(self, values: object, *, status: int = 200) -> None:
        self._send(status, json.dumps(values).encode(), headers={"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes = b"", *, headers: dict[str, str], large: bool = False) -> None:
        requested = self.headers.get("Range")
        if status == 200 and requested:
            start = int(requested.removeprefix("bytes=").partition("-")[0])
            headers = {**headers, "Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}
            status, body = 206, body[start:]
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        faults = self.hub.faults
        if large and faults.take("cuts"):
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
            return
        if large and faults.take("stalls"):
            self.wfile.write(body[: 0 if faults.mute else len(body) // 3])
            self.wfile.flush()
            time.sleep(faults.stall_s)
            self.close_connection = True
            return
        self.wfile.write(body)
