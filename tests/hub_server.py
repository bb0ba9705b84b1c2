"""A server on 127.0.0.1 with the part of the Hugging Face hub's API that an upload of a data set uses.

It keeps files in memory, small ones as git blobs and Parquet and PNG files as large files, and knows one token. Its
clients must not use Xet, whose server is another program: `HF_HUB_DISABLE_XET=1`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

TOKEN = "hf_of_the_test"
LARGE = (".parquet", ".png")
DATE = "2026-01-01T00:00:00.000Z"


@dataclass
class Repository:
    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)
    """Their messages."""


@dataclass
class Hub:
    """The state of the server."""

    endpoint: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    """Uploaded large files by SHA-256."""
    requests: list[str] = field(default_factory=list)
    fails: str = ""
    """Requests with this text in their path are answered with 500."""

    @property
    def environment(self) -> dict[str, str]:
        """For a process that pushes."""
        return {"HF_ENDPOINT": self.endpoint, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}

    def write(self, repository: str, folder: Path) -> Path:
        """Write the files of a repository into a folder, as a clone would."""
        for name, data in self.repositories[repository].files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        return folder


def oid_of(name: str, data: bytes) -> str:
    if name.endswith(LARGE):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *args: object) -> None:
        pass

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, status: int, value: Any = None) -> None:
        data = json.dumps(value if value is not None else {}).encode()
        self.send_response(status)
        if status >= 400 and isinstance(value, dict):
            self.send_header("X-Error-Message", str(value.get("error")))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _handle(self) -> None:
        path, body = urlsplit(self.path).path, self._body()
        self.hub.requests.append(f"{self.command} {path}")
        if self.hub.fails and self.hub.fails in path:
            self._answer(500, {"error": "broken on purpose"})
        elif path.startswith("/large/"):
            self.hub.large[path.rpartition("/")[2]] = body
            self._answer(200)
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(401, {"error": "Invalid username or password."})
        else:
            self._answer(*self._api(path, body))

    do_GET = do_POST = do_PUT = _handle  # noqa: N815 - names of http.server

    def _api(self, path: str, body: bytes) -> tuple[int, Any]:
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        parts = path.removeprefix("/api").removeprefix("/datasets/").split("/")
        repository = self.hub.repositories.get("/".join(parts[:2]).removesuffix(".git"))
        if repository is None:
            return 404, {"error": "Repository not found"}
        if path.endswith("/info/lfs/objects/batch"):
            return 200, {"transfer": "basic", "objects": [self._place(one) for one in json.loads(body)["objects"]]}
        if "preupload" in parts:
            return 200, {"files": [self._mode(repository, one["path"]) for one in json.loads(body)["files"]]}
        if "commit" in parts:
            return self._commit("/".join(parts[:2]), repository, body)
        name = "/".join(parts[:2])
        about = {"id": name, "private": repository.private, "sha": "0" * 40, "lastModified": DATE, "createdAt": DATE}
        return 200, {**about, "tags": [], "downloads": 0, "likes": 0, "siblings": [], "_id": "0", "author": parts[0]}

    def _create(self, wanted: dict[str, Any]) -> tuple[int, Any]:
        name = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
        if name in self.hub.repositories:
            return 409, {
                "error": "You already created this dataset repo",
                "url": f"{self.hub.endpoint}/datasets/{name}",
            }
        self.hub.repositories[name] = Repository(bool(wanted.get("private") or wanted.get("visibility") == "private"))
        return 200, {"url": f"{self.hub.endpoint}/datasets/{name}", "name": name}

    def _place(self, wanted: dict[str, Any]) -> dict[str, Any]:
        answer = {"oid": wanted["oid"], "size": wanted["size"]}
        if wanted["oid"] in self.hub.large:
            return answer
        return {**answer, "actions": {"upload": {"href": f"{self.hub.endpoint}/large/{wanted['oid']}"}}}

    def _mode(self, repository: Repository, name: str) -> dict[str, Any]:
        data = repository.files.get(name)
        mode = "lfs" if name.endswith(LARGE) else "regular"
        oid = None if data is None else oid_of(name, data)
        return {"path": name, "uploadMode": mode, "shouldIgnore": False, "oid": oid}

    def _commit(self, name: str, repository: Repository, body: bytes) -> tuple[int, Any]:
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                repository.commits.append(value["summary"])
            elif line["key"] == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            else:
                repository.files[value["path"]] = self.hub.large[value["oid"]]
        return 200, {"commitUrl": f"{self.hub.endpoint}/datasets/{name}/commit/0", "commitOid": "0" * 40}


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """Serve until the context ends."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("HubHandler", (Handler,), {"hub": hub}))
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
