"""The Hugging Face Hub's HTTP interface, as far as fetching a model needs it, on this machine."""

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def git_sha1(content):
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


@dataclass
class StandInHub:
    """Serves one repository; files in ``large`` as LFS does, with a redirect to another place."""

    files: dict[str, bytes]
    large: tuple[str, ...]
    repository: str = "someone/tiny"
    commit: str = COMMIT
    refuses: int = 0
    """Status that every request is answered with; 0: none."""
    cuts: dict[str, int] = field(default_factory=dict)
    """Bytes after which the connection breaks, by file."""
    spoiled: set[str] = field(default_factory=set)
    """Files that come with another content of the same length."""
    ignores_ranges: bool = False
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    """(path, Range) of what was asked for."""

    def __enter__(self):
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                hub.answer(self)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}"

    def fetched(self):
        """Files that were asked for, and from which byte on."""
        found = [
            re.fullmatch(r"/cdn/(.+)|/.+/resolve/[^/]+/(.+)", path) for path, _ in self.requests
        ]
        return [
            (match[1] or match[2], ranges)
            for match, (_, ranges) in zip(found, self.requests, strict=True)
            if match and not (match[2] and match[2] in self.large)
        ]

    def answer(self, request):
        path = request.path.partition("?")[0]
        self.requests.append((path, request.headers.get("Range")))
        resolve = f"/{self.repository}/resolve/{self.commit}/"
        name = path.removeprefix(resolve).removeprefix("/cdn/")
        if self.refuses:
            send(request, self.refuses, b"no")
        elif path == f"/api/models/{self.repository}/revision/main":
            assert "blobs=true" in request.path.lower()
            send(request, 200, json.dumps(self.info()).encode())
        elif path.startswith(resolve) and name in self.large:
            send(request, 302, b"", {"Location": f"{self.url}/cdn/{name}"})
        elif name in self.files and path != name:
            self.send_file(request, name)
        else:
            send(request, 404, b"no", {"X-Error-Code": "RepoNotFound"})

    def info(self):
        return {
            "id": self.repository,
            "sha": self.commit,
            "siblings": [*map(self.sibling, self.files)],
        }

    def sibling(self, name):
        content = self.files[name]
        found = {"rfilename": name, "size": len(content), "blobId": git_sha1(content)}
        if name in self.large:
            sha256 = hashlib.sha256(content).hexdigest()
            found["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 134}
        return found

    def send_file(self, request, name):
        content = self.files[name]
        if name in self.spoiled:
            content = bytes(255 - byte for byte in content)
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range") or "")
        headers = {}
        status, start = 200, 0
        if asked and not self.ignores_ranges:
            status, start = 206, int(asked[1])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        end = self.cuts.get(name, len(content))
        send(request, status, content[start:], headers, max(0, end - start))


def send(request, status, body, headers=None, sent=None):
    request.send_response(status)
    for key, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
        request.send_header(key, value)
    request.end_headers()
    request.wfile.write(body[:sent])
    if sent is not None and sent < len(body):
        request.close_connection = True
