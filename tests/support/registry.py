"""An OCI registry in this process: memory for storage, options for authentication, faults on demand."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_MANIFEST = re.compile(r"/v2/(.+)/manifests/([^/]+)\Z")
_BLOB = re.compile(r"/v2/(.+)/blobs/(sha(?:256|512):[0-9a-f]+)\Z")
_START = re.compile(r"/v2/(.+)/blobs/uploads/\Z")
_UPLOAD = re.compile(r"/v2/(.+)/blobs/uploads/([0-9]+)\Z")
_TAGS = re.compile(r"/v2/(.+)/tags/list\Z")
_REFERRERS = re.compile(r"/v2/(.+)/referrers/(sha256:[0-9a-f]+)\Z")


@dataclass
class Fault:
    """What to do to the next matching request; ``times`` counts down."""

    match: str
    status: int = 0
    truncate_at: int | None = None
    delay_s: float = 0.0
    redirect_to: str = ""
    corrupt: bool = False
    drop: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    times: int = 1


@dataclass
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]


class Registry:
    """State of the registry; open for tests to look at and to change."""

    def __init__(self) -> None:
        self.blobs: dict[tuple[str, str], bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.tags: dict[tuple[str, str], str] = {}
        self.uploads: dict[str, tuple[str, bytearray]] = {}
        self.faults: list[Fault] = []
        self.seen: list[Seen] = []
        self.lock = threading.Lock()
        self.auth = ""  # "", "basic", "bearer"
        self.users = {"ada": "secret"}
        self.anonymous_pull = False
        self.token_lifetime_s = 300
        self.tokens: dict[str, set[str]] = {}
        self.token_requests: list[str] = []
        self.max_put_bytes = 0
        self.page_size = 0
        self.support_referrers = True
        self.support_mount = True
        self.busy = 0
        self.max_busy = 0
        self.host = ""
        self._next = 0

    def url(self) -> str:
        """http://host:port"""
        return f"http://{self.host}"

    def put_blob(self, repo: str, data: bytes) -> str:
        """Store a blob directly."""
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        self.blobs[repo, digest] = data
        return digest

    def put_manifest(self, repo: str, tag: str, data: bytes, media_type: str) -> str:
        """Store a manifest directly."""
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        self.manifests[repo, digest] = (media_type, data)
        if tag:
            self.tags[repo, tag] = digest
        return digest

    def count(self, method: str, part: str) -> int:
        """How many requests of ``method`` had ``part`` in their path."""
        return sum(1 for seen in self.seen if seen.method == method and part in seen.path)

    def take_fault(self, line: str) -> Fault | None:
        """The fault for a request line, if one is armed."""
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.match, line):
                    fault.times -= 1
                    return fault
        return None

    def next_id(self) -> str:
        """A new upload id."""
        with self.lock:
            self._next += 1
            return str(self._next)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    registry: Registry

    def log_message(self, *args: object) -> None:
        return

    def _serve(self) -> None:
        reg = self.registry
        with reg.lock:
            reg.seen.append(Seen(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
        self.fault = reg.take_fault(f"{self.command} {self.path}")
        fault = self.fault
        if fault is not None:
            if fault.delay_s:
                time.sleep(fault.delay_s)
            if fault.drop:
                self.close_connection = True
                return
            if fault.redirect_to:
                self._body()
                self._reply(307, b"", Location=fault.redirect_to)
                return
            if fault.status:
                self._body()
                self._error(fault.status, "FAULT", "armed", **fault.headers)
                return
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        if path == "/token":
            self._token(query)
            return
        if not path.startswith("/v2/"):
            self._error(404, "NAME_UNKNOWN", "no such page")
            return
        if not self._authorized(path, query):
            return
        if path == "/v2/":
            self._reply(200, b"{}")
            return
        routes: list[tuple[re.Pattern[str], Callable[..., None]]] = [
            (_TAGS, self._tags),
            (_REFERRERS, self._referrers),
            (_MANIFEST, self._manifest),
            (_START, self._start),
            (_UPLOAD, self._upload),
            (_BLOB, self._blob),
        ]
        for pattern, call in routes:
            found = pattern.match(path)
            if found:
                call(*found.groups(), query)
                return
        self._error(404, "NAME_UNKNOWN", "no such route")

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = _serve

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            out = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                out += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return out
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _reply(self, status: int, body: bytes, **headers: str) -> None:
        fault = self.fault
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault is not None and fault.corrupt:
            body = bytes([body[0] ^ 1]) + body[1:]
        if fault is not None and fault.truncate_at is not None:
            self.wfile.write(body[: fault.truncate_at])
            self.wfile.flush()
            self.close_connection = True
            return
        self.wfile.write(body)

    def _error(self, status: int, code: str, message: str, **headers: str) -> None:
        body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
        self._reply(status, body, Content_Type="application/json", **headers)

    # authentication

    def _user(self) -> str | None:
        header = self.headers.get("Authorization", "")
        if not header.startswith("Basic "):
            return None
        user, _, password = base64.b64decode(header[6:]).decode().partition(":")
        return user if self.registry.users.get(user) == password else None

    def _needs(self, path: str, query: dict[str, list[str]]) -> set[str]:
        found = re.match(r"/v2/(.+?)/(?:manifests|blobs|tags|referrers)/", path)
        if not found:
            return set()
        action = "pull" if self.command in ("GET", "HEAD") else "push"
        needs = {f"{found[1]}:{action}"}
        needs |= {f"{source}:pull" for source in query.get("from", [])}
        return needs

    def _authorized(self, path: str, query: dict[str, list[str]]) -> bool:
        reg = self.registry
        if not reg.auth:
            return True
        needs = self._needs(path, query)
        if reg.auth == "basic":
            if self._user() is not None:
                return True
            self._body()
            self._error(401, "UNAUTHORIZED", "log in", WWW_Authenticate='Basic realm="test"')
            return False
        header = self.headers.get("Authorization", "")
        token = header.removeprefix("Bearer ")
        if header.startswith("Bearer ") and token in reg.tokens and needs <= reg.tokens[token]:
            return True
        scope = " ".join(f"repository:{need}" for need in sorted(needs))
        self._body()
        challenge = f'Bearer realm="{reg.url()}/token",service="test",scope="{scope}"'
        self._error(401, "UNAUTHORIZED", "token wanted", WWW_Authenticate=challenge)
        return False

    def _token(self, query: dict[str, list[str]]) -> None:
        reg = self.registry
        user = self._user()
        scopes: list[str] = list(query.get("scope", []))
        if self.command == "POST":
            form = urllib.parse.parse_qs(self._body().decode())
            scopes = form.get("scope", [""])[0].split()
            user = "ada" if form.get("refresh_token") == ["identity"] else None
        reg.token_requests.append(" ".join(sorted(scopes)))
        if user is None and (self.headers.get("Authorization") or not reg.anonymous_pull):
            self._error(401, "UNAUTHORIZED", "wrong password")
            return
        grants: set[str] = set()
        for scope in scopes:
            _, name, actions = scope.split(":")
            for action in actions.split(","):
                if user is not None or action == "pull":
                    grants.add(f"{name}:{action}")
        token = f"t{reg.next_id()}"
        reg.tokens[token] = grants
        body = json.dumps({"token": token, "expires_in": reg.token_lifetime_s}).encode()
        self._reply(200, body, Content_Type="application/json")

    # documents

    def _manifest(self, repo: str, target: str, query: dict[str, list[str]]) -> None:
        reg = self.registry
        if self.command == "PUT":
            data = self._body()
            kind = self.headers.get("Content-Type", "")
            value = json.loads(data)
            for blob in [value.get("config"), *value.get("layers", [])]:
                if blob and (repo, blob["digest"]) not in reg.blobs:
                    self._error(400, "MANIFEST_BLOB_UNKNOWN", blob["digest"])
                    return
            for child in value.get("manifests", []):
                if (repo, child["digest"]) not in reg.manifests:
                    self._error(400, "MANIFEST_UNKNOWN", child["digest"])
                    return
            digest = reg.put_manifest(repo, "" if target.startswith("sha256:") else target, data, kind)
            self._reply(201, b"", Docker_Content_Digest=digest, Location=self.path)
            return
        digest = target if target.startswith("sha256:") else reg.tags.get((repo, target), "")
        found = reg.manifests.get((repo, digest))
        if found is None:
            self._error(404, "MANIFEST_UNKNOWN", "manifest unknown")
            return
        self._reply(200, found[1], Content_Type=found[0], Docker_Content_Digest=digest)

    def _tags(self, repo: str, query: dict[str, list[str]]) -> None:
        reg = self.registry
        names = sorted(tag for name, tag in reg.tags if name == repo)
        last = query.get("last", [""])[0]
        rest = [name for name in names if name > last]
        extra: dict[str, str] = {}
        if reg.page_size and len(rest) > reg.page_size:
            rest = rest[: reg.page_size]
            extra["Link"] = f'</v2/{repo}/tags/list?last={rest[-1]}>; rel="next"'
        self._reply(200, json.dumps({"name": repo, "tags": rest}).encode(), **extra)

    def _referrers(self, repo: str, digest: str, query: dict[str, list[str]]) -> None:
        reg = self.registry
        if not reg.support_referrers:
            self._error(404, "NOT_FOUND", "no referrers here")
            return
        found: list[dict[str, Any]] = []
        for (name, own), (kind, data) in reg.manifests.items():
            value = json.loads(data)
            if name == repo and (value.get("subject") or {}).get("digest") == digest:
                found.append(
                    {
                        "mediaType": kind,
                        "digest": own,
                        "size": len(data),
                        "artifactType": value.get("artifactType", ""),
                    }
                )
        body = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": found,
        }
        self._reply(200, json.dumps(body).encode())

    # blobs

    def _blob(self, repo: str, digest: str, query: dict[str, list[str]]) -> None:
        reg = self.registry
        data = reg.blobs.get((repo, digest))
        if data is None:
            self._error(404, "BLOB_UNKNOWN", "blob unknown")
            return
        with reg.lock:
            reg.busy += 1
            reg.max_busy = max(reg.max_busy, reg.busy)
        try:
            if self.command == "GET" and reg.auth == "" and len(data) > 1000:
                time.sleep(0.01)
            wanted = re.match(r"bytes=(\d+)-\Z", self.headers.get("Range", ""))
            if wanted:
                start = int(wanted[1])
                span = f"bytes {start}-{len(data) - 1}/{len(data)}"
                self._reply(206, data[start:], Content_Range=span)
            else:
                self._reply(200, data, Docker_Content_Digest=digest)
        finally:
            with reg.lock:
                reg.busy -= 1

    def _start(self, repo: str, query: dict[str, list[str]]) -> None:
        reg = self.registry
        self._body()
        mount, source = query.get("mount", [""])[0], query.get("from", [""])[0]
        if reg.support_mount and mount and (source, mount) in reg.blobs:
            reg.blobs[repo, mount] = reg.blobs[source, mount]
            self._reply(201, b"", Location=f"/v2/{repo}/blobs/{mount}", Docker_Content_Digest=mount)
            return
        name = reg.next_id()
        reg.uploads[name] = (repo, bytearray())
        self._reply(202, b"", Location=f"/v2/{repo}/blobs/uploads/{name}?state=x")

    def _upload(self, repo: str, name: str, query: dict[str, list[str]]) -> None:
        reg = self.registry
        data = self._body()
        if name not in reg.uploads:
            self._error(404, "BLOB_UPLOAD_UNKNOWN", "upload unknown")
            return
        _, buffer = reg.uploads[name]
        if self.command == "DELETE":
            del reg.uploads[name]
            self._reply(204, b"")
            return
        if reg.max_put_bytes and len(data) > reg.max_put_bytes:
            self._error(413, "SIZE_INVALID", "too large")
            return
        if self.command == "PATCH":
            start = self.headers.get("Content-Range", "").partition("-")[0]
            if start and int(start) != len(buffer):
                self._error(416, "RANGE", "out of order")
                return
            buffer += data
            self._reply(202, b"", Location=self.path, Range=f"0-{len(buffer) - 1}")
            return
        buffer += data
        digest = query["digest"][0]
        if "sha256:" + hashlib.sha256(buffer).hexdigest() != digest:
            self._error(400, "DIGEST_INVALID", "digest does not match")
            return
        reg.blobs[repo, digest] = bytes(buffer)
        del reg.uploads[name]
        self._reply(201, b"", Location=f"/v2/{repo}/blobs/{digest}", Docker_Content_Digest=digest)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        return  # a client that hangs up is part of some tests


@contextmanager
def running_registry(tls: ssl.SSLContext | None = None) -> Iterator[Registry]:
    """A registry on a free loopback port, behind TLS if a context for that is given."""
    registry = Registry()
    handler = type("Handler", (_Handler,), {"registry": registry})
    server = _Server(("127.0.0.1", 0), handler)
    registry.host = f"127.0.0.1:{server.server_address[1]}"
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
