"""Small services on the loopback that keep caches: S3 and Azure Blob Storage (``cloudactions`` has GitHub's).

They check every signature by the services' published rules, from the bytes that arrived, and share no code
with the client.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar


@dataclass
class Request:
    """One request as it arrived; header names are in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def url(self) -> urllib.parse.SplitResult:
        return urllib.parse.urlsplit(self.target)

    @property
    def path(self) -> str:
        return self.url.path

    @property
    def query(self) -> dict[str, str]:
        return dict(urllib.parse.parse_qsl(self.url.query, keep_blank_values=True))

    def line(self) -> str:
        return f"{self.method} {self.target}"


@dataclass
class Answer:
    """What goes back."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    """Break off after so many bytes of the body."""


@dataclass
class Fault:
    """What to do to requests whose line matches; ``times`` counts down."""

    match: str
    answer: Answer
    times: int = 1_000_000
    real: bool = False
    """Take the real answer, and only ``cut`` from here."""


class Refused(Exception):
    """A request that the rules do not allow."""

    def __init__(self, status: int, code: str, text: str = "no") -> None:
        super().__init__(f"{status} {code}: {text}")
        self.status, self.code, self.text = status, code, text


class Cloud:
    """Common to all: requests seen, and faults."""

    port = 0

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.seen: list[Request] = []
        self.refused: list[str] = []
        self.faults: list[Fault] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def count(self, pattern: str) -> int:
        return sum(bool(re.search(pattern, request.line())) for request in self.seen)

    def reply(self, request: Request) -> Answer:
        with self.lock:
            self.seen.append(request)
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.match, request.line()):
                    fault.times -= 1
                    if not fault.real:
                        return fault.answer
                    real = self.safely(request)
                    return Answer(real.status, real.body, real.headers, cut=fault.answer.cut)
            return self.safely(request)

    def safely(self, request: Request) -> Answer:
        try:
            return self.handle(request)
        except Refused as error:
            self.refused.append(str(error))
            return self.error(error)

    def handle(self, request: Request) -> Answer:
        raise NotImplementedError

    def error(self, error: Refused) -> Answer:
        text = f"<?xml version='1.0'?><Error><Code>{error.code}</Code><Message>{error.text}</Message></Error>"
        return Answer(error.status, text.encode())


def _handler(cloud: Cloud) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = cloud.reply(Request(self.command, self.path, headers, self.rfile.read(length)))
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if "Content-Length" not in answer.headers and answer.status != 204:
                self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body[: answer.cut])
            if answer.cut is not None:
                self.close_connection = True

        do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = _serve

    return Handler


C = TypeVar("C", bound=Cloud)


@contextmanager
def running(cloud: C) -> Iterator[C]:
    """Serve it while the body runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(cloud))
    server.daemon_threads = True
    cloud.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield cloud
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def ranged(request: Request, data: bytes, more: dict[str, str] | None = None) -> Answer:
    """A reply with a file, or the part of it that was asked for."""
    headers = dict(more or {})
    wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
    if wanted is None:
        return Answer(200, data, {**headers, "Content-Length": str(len(data))})
    start = int(wanted[1])
    part = data[start:]
    headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
    return Answer(206, part, headers)


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


# --- S3


class S3(Cloud):
    """Buckets and their objects by name, with when they were last written."""

    def __init__(self, *buckets: str, region: str = "eu-west-1", session: str = "") -> None:
        super().__init__()
        self.buckets = {name: dict[str, bytes]() for name in buckets}
        self.modified: dict[tuple[str, str], float] = {}
        self.claimed: dict[str, int] = {}
        self.region, self.session = region, session
        self.access, self.secret = "AKIDTEST", "canary-s3-secret-key"
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.public = False

    def handle(self, request: Request) -> Answer:
        if "authorization" in request.headers or not self.public or request.method not in ("GET", "HEAD"):
            self.check(request)
        bucket, key = self._named(request)
        if bucket not in self.buckets:
            raise Refused(404, "NoSuchBucket", "The specified bucket does not exist")
        return getattr(self, f"_{request.method.lower()}")(request, bucket, key)  # type: ignore[no-any-return]

    def _named(self, request: Request) -> tuple[str, str]:
        path = urllib.parse.unquote(request.path).removeprefix("/")
        host = request.headers["host"].partition(":")[0]
        if not host.startswith("127."):
            return host.partition(".")[0], path
        bucket, _, key = path.partition("/")
        return bucket, key

    def check(self, request: Request) -> None:
        """Signature Version 4, as AWS describes the checking of a request."""
        headers = request.headers
        found = re.fullmatch(
            r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/s3/aws4_request, ?"
            r"SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})",
            headers.get("authorization", ""),
        )
        if found is None:
            raise Refused(403, "AccessDenied", "Access Denied")
        access, date, region, names, signature = found.groups()
        if access != self.access:
            raise Refused(403, "InvalidAccessKeyId")
        if region != self.region:
            raise Refused(400, "AuthorizationHeaderMalformed", f"expecting '{self.region}'")
        signed = names.split(";")
        must = {"host"} | {name for name in headers if name.startswith("x-amz-")}
        if signed != sorted(signed) or not must <= set(signed):
            raise Refused(403, "AccessDenied", f"headers that are not signed: {must - set(signed)}")
        if headers.get("x-amz-security-token", "") != self.session:
            raise Refused(403, "InvalidToken", f"got {headers.get('x-amz-security-token')}")
        if headers["x-amz-content-sha256"] != hashlib.sha256(request.body).hexdigest():
            raise Refused(400, "XAmzContentSHA256Mismatch")
        stamp = headers["x-amz-date"]
        sent = time.mktime(time.strptime(stamp, "%Y%m%dT%H%M%SZ")) - time.timezone
        if abs(time.time() - sent) > 900 or not stamp.startswith(date):
            raise Refused(403, "RequestTimeTooSkewed")
        pairs = urllib.parse.parse_qsl(request.url.query, keep_blank_values=True)
        canonical = [
            request.method,
            urllib.parse.quote(urllib.parse.unquote(request.path), safe="/-_.~"),
            "&".join(
                "=".join(urllib.parse.quote(text, safe="-_.~") for text in pair) for pair in sorted(pairs)
            ),
            "".join(f"{name}:{' '.join(headers[name].split())}\n" for name in signed),
            names,
            headers["x-amz-content-sha256"],
        ]
        hashed = hashlib.sha256("\n".join(canonical).encode()).hexdigest()
        text = f"AWS4-HMAC-SHA256\n{stamp}\n{date}/{region}/s3/aws4_request\n{hashed}"
        key = _hmac(_hmac(_hmac(_hmac(b"AWS4" + self.secret.encode(), date), region), "s3"), "aws4_request")
        if _hmac(key, text).hex() != signature:
            raise Refused(403, "SignatureDoesNotMatch", "The request signature does not match")

    def _store(self, bucket: str, key: str, data: bytes) -> Answer:
        self.buckets[bucket][key] = data
        self.modified[bucket, key] = time.time()
        return Answer(200, b"", {"ETag": f'"{hashlib.md5(data).hexdigest()}"'})

    def _get(self, request: Request, bucket: str, key: str) -> Answer:
        if key not in self.buckets[bucket]:
            raise Refused(404, "NoSuchKey", "The specified key does not exist.")
        when = formatdate(self.modified[bucket, key], usegmt=True)
        return ranged(request, self.buckets[bucket][key], {"Last-Modified": when})

    def _head(self, request: Request, bucket: str, key: str) -> Answer:
        answer = self._get(request, bucket, key)
        answer.headers["Content-Length"] = str(self.claimed.get(key, len(answer.body)))
        return answer

    def _put(self, request: Request, bucket: str, key: str) -> Answer:
        source = request.headers.get("x-amz-copy-source", "")
        upload = request.query.get("uploadId")
        if upload:
            self.uploads[upload][int(request.query["partNumber"])] = request.body
            if source:
                assert request.headers["x-amz-copy-source-range"].startswith("bytes=")
                return Answer(200, b"<CopyPartResult><ETag>&quot;copied&quot;</ETag></CopyPartResult>")
            return Answer(200, b"", {"ETag": f'"part{request.query["partNumber"]}"'})
        if source:
            assert urllib.parse.unquote(source) == f"/{bucket}/{key}"
            if request.headers.get("x-amz-metadata-directive") != "REPLACE":
                raise Refused(400, "InvalidRequest", "This copy request is illegal")
            self._store(bucket, key, self.buckets[bucket][key])
            return Answer(200, b"<CopyObjectResult><ETag>x</ETag></CopyObjectResult>")
        return self._store(bucket, key, request.body)

    def _post(self, request: Request, bucket: str, key: str) -> Answer:
        if "uploads" in request.query:
            name = f"up/{len(self.uploads)}+a=="
            self.uploads[name] = {}
            return Answer(200, f"<R><Key>{key}</Key><UploadId>{name}</UploadId></R>".encode())
        parts = self.uploads.pop(request.query["uploadId"])
        numbers = [int(number) for number in re.findall(rb"<PartNumber>(\d+)</PartNumber>", request.body)]
        if numbers != sorted(parts):
            raise Refused(400, "InvalidPart")
        if key not in self.claimed:
            self._store(bucket, key, b"".join(parts[number] for number in numbers))
        else:
            self.modified[bucket, key] = time.time()
        return Answer(200, b"<CompleteMultipartUploadResult/>")

    def _delete(self, request: Request, _bucket: str, _key: str) -> Answer:
        self.uploads.pop(request.query["uploadId"], None)
        return Answer(204)


# --- Azure Blob Storage


class Azure(Cloud):
    """Containers and their block blobs by name."""

    def __init__(self, *containers: str, account: str = "acct") -> None:
        super().__init__()
        self.containers = {name: dict[str, bytes]() for name in containers}
        self.blocks: dict[str, dict[str, bytes]] = {}
        self.account, self.key = account, base64.b64encode(b"canary-azure-key-bytes").decode()

    def handle(self, request: Request) -> Answer:
        self.check(request)
        container, _, name = urllib.parse.unquote(request.path).removeprefix("/").partition("/")
        if request.query.get("restype") == "container":
            return self._container(request, container)
        if container not in self.containers:
            raise Refused(404, "ContainerNotFound")
        blobs = self.containers[container]
        if request.method == "PUT":
            return self._put(request, blobs, name)
        if name not in blobs:
            raise Refused(404, "BlobNotFound")
        return ranged(request, blobs[name])

    def _container(self, request: Request, name: str) -> Answer:
        if request.method == "PUT":
            if name in self.containers:
                raise Refused(409, "ContainerAlreadyExists")
            self.containers[name] = {}
            return Answer(201)
        if name not in self.containers:
            raise Refused(404, "ContainerNotFound")
        return Answer(200)

    def _put(self, request: Request, blobs: dict[str, bytes], name: str) -> Answer:
        kind = request.query.get("comp", "")
        if kind == "block":
            self.blocks.setdefault(name, {})[request.query["blockid"]] = request.body
        elif kind == "blocklist":
            listed = re.findall(r"<Latest>([^<]+)</Latest>", request.body.decode())
            blobs[name] = b"".join(self.blocks.get(name, {})[block] for block in listed)
        elif request.headers.get("x-ms-blob-type") != "BlockBlob":
            raise Refused(400, "InvalidHeaderValue")
        else:
            blobs[name] = request.body
        return Answer(201)

    def error(self, error: Refused) -> Answer:
        answer = super().error(error)
        answer.headers["x-ms-error-code"] = error.code
        return answer

    def check(self, request: Request) -> None:
        """Shared Key, as Microsoft describes it for versions from 2015-02-21 on."""
        headers = request.headers
        scheme, _, rest = headers.get("authorization", "").partition(" ")
        account, _, signature = rest.partition(":")
        if scheme != "SharedKey" or not headers.get("x-ms-version") or not headers.get("x-ms-date"):
            raise Refused(403, "AuthenticationFailed", "no Shared Key, version or date")
        length = headers.get("content-length", "")
        ordered: list[Any] = [request.method]
        ordered += [headers.get("content-encoding", ""), headers.get("content-language", "")]
        ordered += ["" if length == "0" else length, headers.get("content-md5", "")]
        ordered += [headers.get("content-type", ""), headers.get("date", "")]
        ordered += [headers.get(f"if-{name}", "") for name in ("modified-since", "match", "none-match")]
        ordered += [headers.get("if-unmodified-since", ""), headers.get("range", "")]
        text = "".join(f"{item}\n" for item in ordered)
        for name in sorted(name for name in headers if name.startswith("x-ms-")):
            text += f"{name}:{headers[name].strip()}\n"
        text += f"/{self.account}{request.path}"
        for name, value in sorted(request.query.items()):
            text += f"\n{name.lower()}:{value}"
        wanted = base64.b64encode(_hmac(base64.b64decode(self.key), text)).decode()
        if account != self.account or signature != wanted:
            raise Refused(403, "AuthenticationFailed", "the signature does not match")
