"""A Hugging Face hub of one model on this machine: as much of its HTTP interface as its client needs."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import msgspec

NAME = "org/tiny"
GATED = "org/gated"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """`files` are the model's; `broken` is a file that cannot be had now; `fetched` counts what was sent whole.
    `sent` has what is sent in place of a file's content, and `digests` is off for a mirror that lists sizes alone."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.files = files
        self.broken = ""
        self.fetched: list[str] = []
        self.sent: dict[str, bytes] = {}
        self.digests = True

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def sibling(self, name: str) -> dict[str, object]:
        """The file as the hub lists it. Weights are in its large file storage."""
        content = self.files[name]
        listed: dict[str, object] = {"rfilename": name, "size": len(content)}
        if self.digests:
            listed["blobId"] = git_hash(content)
        if self.digests and name.endswith(".safetensors"):
            sha256 = hashlib.sha256(content).hexdigest()
            listed |= {
                "blobId": git_hash(b"a pointer"),
                "lfs": {"sha256": sha256, "size": len(content), "pointerSize": 9},
            }
        return listed


class HubHandler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        files = self.server.files
        if path in (f"/api/models/{NAME}", f"/api/models/{NAME}/revision/{COMMIT}"):
            siblings = [self.server.sibling(name) for name in files]
            self.send_json({"id": NAME, "sha": COMMIT, "siblings": siblings})
        elif path == f"/api/models/{NAME}/tree/{COMMIT}":
            self.send_json([{"type": "file", "path": n, "size": len(c), "oid": n} for n, c in files.items()])
        elif path.startswith(f"/{NAME}/resolve/{COMMIT}/"):
            self.send_file(path.split("/", 5)[5])
        elif path.startswith(f"/api/models/{GATED}"):
            self.send(403, b"{}", {"X-Error-Code": "GatedRepo"})
        else:
            self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def send_file(self, name: str) -> None:
        if name == self.server.broken:
            self.send(403, b"{}", {})
            return
        content = self.server.sent.get(name, self.server.files[name])
        self.send(200, content, {"ETag": f'"{name}"', "X-Repo-Commit": COMMIT})
        if self.command == "GET":
            self.server.fetched.append(name)

    def send_json(self, content: object) -> None:
        self.send(200, msgspec.json.encode(content), {"Content-Type": "application/json"})

    def send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_args: object) -> None:
        return None


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0%b" % (len(content), content), usedforsecurity=False).hexdigest()


@contextmanager
def serve_hub(files: dict[str, bytes]) -> Iterator[Hub]:
    with Hub(files) as hub:
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
