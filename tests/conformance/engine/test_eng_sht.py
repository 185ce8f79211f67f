"""http sources (SHT rows)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from builder.cache.store import Store
from builder.errors import SourceUnavailable
from builder.solver.types import Secret
from builder.sources.http import HttpAccess, HttpSource, safe_name
from builder.sources.steps import SilentStep
from tests.support.buildlab import Lab
from tests.support.rows import row

root_only = pytest.mark.root
MODIFIED = "Wed, 01 Jan 2020 00:00:00 GMT"
MODIFIED_S = 1577836800


class Web:
    """A server that keeps its requests; ``reply`` by path is (status, headers, body)."""

    def __init__(self) -> None:
        self.replies: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                headers = {key.lower(): value for key, value in self.headers.items()}
                web.seen.append((self.command, self.path, headers))
                status, more, body = web.replies.get(self.path, (404, {}, b""))
                conditions = (("ETag", "if-none-match"), ("Last-Modified", "if-modified-since"))
                if any(name in more and headers.get(asked) == more[name] for name, asked in conditions):
                    status, body = 304, b""
                self.send_response(status)
                for key, value in more.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_GET = do_HEAD = answer

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("0.0.0.0", 0), Handler)
        self.port = self.server.server_port
        Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def methods(self) -> list[str]:
        return [method for method, _, _ in self.seen]


@pytest.fixture
def web() -> Iterator[Web]:
    made = Web()
    yield made
    made.server.shutdown()
    made.server.server_close()


def fetch(store: Store, url: str, **more: Any) -> Any:
    return HttpSource(store, store.blobs, url, **more).fetch(SilentStep())


@row("SHT-01")
@root_only
def test_what_comes_of_a_url(lab: Lab, web: Web) -> None:
    web.replies["/dir/file.txt"] = (200, {"Last-Modified": MODIFIED}, b"text")
    web.replies["/go"] = (302, {"Location": "/dir/file.txt"}, b"")
    web.replies["/plain"] = (200, {}, b"1")
    built = lab.quick(
        f"FROM scratch\nADD {web.url('/dir/file.txt')} {web.url('/go')} {web.url('/plain')} /d/\n"
    )
    assert sorted(built.names("d")) == ["file.txt", "go", "plain"]
    st = built.stat("d/file.txt")
    assert (st.st_mode & 0o777, st.st_uid, st.st_gid, st.st_mtime) == (0o600, 0, 0, MODIFIED_S)
    assert built.read("d/go") == "text"
    assert built.stat("d/plain").st_mtime == 0
    for status in (404, 500, 403):
        web.replies["/bad"] = (status, {}, b"")
        with pytest.raises(SourceUnavailable, match=f"invalid response status {status}"):
            lab.quick(f"FROM scratch\nADD {web.url('/bad')} /\n")


@row("SHT-01")
def test_names_are_one_element(store: Store, web: Web) -> None:
    web.replies["/x/last"] = (200, {}, b"")
    web.replies["/x/said"] = (200, {"Content-Disposition": 'attachment; filename="../../etc/evil"'}, b"")
    web.replies["/"] = (200, {}, b"")
    assert fetch(store, web.url("/x/last")).name == "last"
    assert fetch(store, web.url("/x/said")).name == "evil"
    assert fetch(store, web.url("/x/said"), filename="a/b/given").name == "given"
    assert fetch(store, web.url("/")).name == "__unnamed__"
    assert safe_name("", "attachment; filename*=utf-7''+2AA-", "http://h/x") == "x"  # half a character
    for bad in ("..", ".", "/", "a/..", "x" * 300, "%2e%2e", "\0"):
        assert safe_name("", "", f"http://h/{bad}") == "__unnamed__"


@row("SHT-02")
def test_revalidation(store: Store, web: Web) -> None:
    web.replies["/f"] = (200, {"ETag": '"1"', "Last-Modified": MODIFIED}, b"one")
    first = fetch(store, web.url("/f"))
    again = fetch(store, web.url("/f"))
    assert again == first
    assert web.methods() == ["GET", "HEAD"]
    assert web.seen[1][2]["if-none-match"] == '"1"'
    web.replies["/f"] = (200, {"ETag": '"2"'}, b"two")
    assert fetch(store, web.url("/f")).path.read_bytes() == b"two"
    web.replies["/m"] = (200, {"Last-Modified": MODIFIED}, b"dated")
    fetch(store, web.url("/m"))
    count = len(web.seen)
    fetch(store, web.url("/m"))
    assert set(web.methods()[count:]) <= {"HEAD", "GET"}
    assert len(web.seen) == count + 1
    digest = "sha256:" + hashlib.sha256(b"two").hexdigest()
    count = len(web.seen)
    assert fetch(store, web.url("/elsewhere"), checksum=digest).path.read_bytes() == b"two"
    digest = "sha256:" + hashlib.sha256(b"dated").hexdigest()
    alike = fetch(store, web.url("/elsewhere"), checksum=digest)
    assert (alike.name, alike.mtime_s) == ("elsewhere", MODIFIED_S)  # the same file whatever came before
    assert len(web.seen) == count  # nobody is asked for what its digest names


@row("SHT-01")
def test_headers_that_make_no_sense(store: Store, web: Web) -> None:
    web.replies["/caf%C3%A9%20x"] = (200, {}, b"1")
    web.replies["/raw"] = (302, {"Location": "/caf\xc3\xa9 x "}, b"")  # as some servers send a name
    assert fetch(store, web.url("/raw")).size == 1
    for target in ("http://[::bad/x", "http://h:99999/x", "file:///etc/passwd"):
        web.replies["/go"] = (302, {"Location": target}, b"")
        with pytest.raises(SourceUnavailable, match="is not followed"):
            fetch(store, web.url("/go"))


@row("SHT-02")
def test_a_server_without_head(store: Store, web: Web) -> None:
    """HEAD refused: the GET with the same condition decides."""
    web.replies["/f"] = (200, {"ETag": '"1"'}, b"one")
    fetch(store, web.url("/f"))
    handler = web.server.RequestHandlerClass
    real = handler.do_HEAD  # type: ignore[attr-defined]

    def refuse(self: Any) -> None:
        web.seen.append(("HEAD", self.path, {}))
        self.send_response(405)
        self.send_header("Content-Length", "0")
        self.end_headers()

    handler.do_HEAD = refuse  # type: ignore[attr-defined]
    fetch(store, web.url("/f"))
    handler.do_HEAD = real  # type: ignore[attr-defined]
    assert web.methods() == ["GET", "HEAD", "GET"]
    assert web.seen[2][2]["if-none-match"] == '"1"'


@row("SHT-03")
@root_only
def test_checksum(lab: Lab, web: Web) -> None:
    web.replies["/f"] = (200, {}, b"data")
    right = "sha256:" + hashlib.sha256(b"data").hexdigest()
    wrong = "sha256:" + hashlib.sha256(b"other").hexdigest()
    assert lab.quick(f"FROM scratch\nADD --checksum={right} {web.url('/f')} /\n").read("f") == "data"
    with pytest.raises(SourceUnavailable, match=f"digest mismatch {right}: {wrong}"):
        lab.quick(f"FROM scratch\nADD --checksum={wrong} {web.url('/f')} /\n")


@row("SHT-04")
@root_only
def test_credentials(lab: Lab, web: Web) -> None:
    web.replies["/f"] = (200, {}, b"1")
    web.replies["/away"] = (302, {"Location": web.url("/f", "localhost")}, b"")
    secrets = (Secret(id="HTTP_AUTH_TOKEN_127.0.0.1", data=b"tok3n"),)
    lab.quick(f"FROM scratch\nADD {web.url('/f')} /\n", secrets=secrets)
    assert web.seen[-1][2]["authorization"] == "Bearer tok3n"
    lab.quick(f"FROM scratch\nADD {web.url('/away')} /\n", secrets=secrets)
    asked = [
        (headers["host"].partition(":")[0], headers.get("authorization")) for _, _, headers in web.seen[1:]
    ]
    assert ("127.0.0.1", "Bearer tok3n") in asked
    assert ("localhost", None) in asked
    assert all(sent is None for host, sent in asked if host == "localhost")
    header = (Secret(id="HTTP_AUTH_HEADER_127.0.0.1", data=b"Custom abc"),)
    lab.quick(f"FROM scratch\nADD {web.url('/f')} /g\n", secrets=header)
    assert web.seen[-1][2]["authorization"] == "Custom abc"


@row("SHT-04")
def test_only_two_headers_are_taken(store: Store, web: Web) -> None:
    web.replies["/f"] = (200, {}, b"1")
    headers = (("Accept", "text/x"), ("User-Agent", "me"), ("Cookie", "no"), ("X-Forwarded-For", "no"))
    fetch(store, web.url("/f"), access=HttpAccess(headers=headers))
    sent = web.seen[-1][2]
    assert (sent["accept"], sent["user-agent"]) == ("text/x", "me")
    assert not {"cookie", "x-forwarded-for"} & set(sent)
