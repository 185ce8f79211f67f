"""http sources and contexts from a server on the loopback (SHT-01…04, CTX-04, CVE-2020-10696)."""

from __future__ import annotations

import contextlib
import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from builder.cache.store import Store
from builder.errors import SourceUnavailable
from builder.sources.contexts import prepare_context
from builder.sources.http import HttpAccess, HttpSource, parse_date, safe_name
from builder.sources.steps import SilentStep

STEP = SilentStep()
MODIFIED = "Wed, 01 Jan 2020 00:00:00 GMT"


class Site:
    """What the server has; ``requests`` are (method, path, headers)."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.headers: dict[str, dict[str, str]] = {}
        self.redirects: dict[str, str] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                site.requests.append((self.command, self.path, dict(self.headers)))
                path = self.path.partition("?")[0]
                if path in site.redirects:
                    self.send_response(302)
                    self.send_header("Location", site.redirects[path])
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                data = site.files.get(path)
                if data is None:
                    self.send_error(404)
                    return
                tag = '"' + hashlib.sha256(data).hexdigest()[:12] + '"'
                current = self.headers.get("If-None-Match") == tag
                self.send_response(304 if current else 200)
                self.send_header("ETag", tag)
                self.send_header("Last-Modified", MODIFIED)
                for name, value in site.headers.get(path, {}).items():
                    self.send_header(name, value)
                if not current:
                    self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.command == "GET" and not current:
                    self.wfile.write(data)

            do_GET = do_HEAD = answer

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.server.server_port}{path}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with contextlib.closing(Store.open(tmp_path / "state", snapshotter="native")) as store:
        yield store


def source(store: Store, url: str, **more: Any) -> HttpSource:
    return HttpSource(store, store.blobs, url, **more)


def test_fetch_and_revalidate(site: Site, store: Store) -> None:
    site.files["/dir/a.bin"] = b"content"
    first = source(store, site.url("/dir/a.bin")).fetch(STEP)
    assert first.path.read_bytes() == b"content"
    assert (first.name, first.size, first.mtime_s) == ("a.bin", 7, 1577836800)
    site.requests.clear()
    assert source(store, site.url("/dir/a.bin")).fetch(STEP) == first
    assert [method for method, _, _ in site.requests] == ["HEAD"]
    site.files["/dir/a.bin"] = b"other"
    assert source(store, site.url("/dir/a.bin")).fetch(STEP).path.read_bytes() == b"other"


def test_checksum(site: Site, store: Store) -> None:
    site.files["/a"] = b"content"
    good = "sha256:" + hashlib.sha256(b"content").hexdigest()
    assert source(store, site.url("/a"), checksum=good).fetch(STEP).size == 7
    site.requests.clear()
    source(store, site.url("/a"), checksum=good).fetch(STEP)
    assert site.requests == []
    with pytest.raises(SourceUnavailable, match="digest mismatch") as caught:
        source(store, site.url("/a"), checksum="sha256:" + "0" * 64).fetch(STEP)
    assert caught.value.code == "digest-mismatch"
    other = "sha512:" + hashlib.sha512(b"content").hexdigest()
    assert source(store, site.url("/a"), checksum=other).fetch(STEP).size == 7


def test_status(site: Site, store: Store) -> None:
    with pytest.raises(SourceUnavailable, match="invalid response status 404"):
        source(store, site.url("/none")).fetch(STEP)


def test_credentials_stay_with_their_host(site: Site, store: Store) -> None:
    site.files["/a"] = b"x"
    site.redirects["/r"] = site.url("/a", "localhost")
    access = HttpAccess(secrets={"HTTP_AUTH_TOKEN_127.0.0.1": "hunter2"})
    source(store, site.url("/r"), access=access).fetch(STEP)
    sent = {path: headers.get("Authorization") for _, path, headers in site.requests}
    assert sent == {"/r": "Bearer hunter2", "/a": None}


def test_credentials_in_the_url_reach_no_file(site: Site, store: Store) -> None:
    site.files["/a"] = b"x"
    url = site.url("/a").replace("http://", "http://user:hunter2@")
    source(store, url).fetch(STEP)
    assert site.requests[0][2]["Authorization"].startswith("Basic ")
    for path in store.root.rglob("*"):
        if path.is_file():
            assert b"hunter2" not in path.read_bytes()


def test_url_as_dockerfile(site: Site, store: Store) -> None:
    site.files["/some/Dockerfile"] = b"FROM busybox\n"
    with prepare_context(
        store, site.url("/some/Dockerfile"), compile_ignore=lambda _: pytest.fail()
    ) as prepared:
        assert prepared.dockerfile == b"FROM busybox\n"
        assert prepared.main is not None
        assert [path for path, _ in prepared.main.walk()] == ["context"]


def test_url_as_archive(site: Site, store: Store) -> None:
    site.files["/ctx"] = archive([("Dockerfile", b"FROM t\n", ""), ("d/f", b"f", "")])
    with prepare_context(store, site.url("/ctx"), compile_ignore=lambda _: pytest.fail()) as prepared:
        assert prepared.main is not None
        assert [path for path, _ in prepared.main.walk()] == ["Dockerfile", "d", "d/f"]


@pytest.mark.parametrize(
    "entries",
    [
        [("../../../canary", b"x", "")],
        [("/canary", b"x", "")],
        [("link", b"", "../../.."), ("link/canary", b"x", "")],
        [("link", b"", "/"), ("link/tmp/canary", b"x", "")],
    ],
)
def test_hostile_archive_writes_nothing_outside(site: Site, store: Store, entries: Any) -> None:
    site.files["/ctx"] = archive([("Dockerfile", b"FROM t\n", ""), *entries])
    before = set(store.root.parent.rglob("*canary*"))
    with contextlib.suppress(SourceUnavailable):
        prepare_context(store, site.url("/ctx"), compile_ignore=lambda _: pytest.fail()).cleanup()
    assert set(store.root.parent.rglob("*canary*")) == before
    assert not Path("/canary").exists()
    assert not Path("/tmp/canary").exists()


def archive(entries: list[tuple[str, bytes, str]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, data, target in entries:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if target:
                info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


@pytest.mark.parametrize(
    ("given", "disposition", "url", "name"),
    [
        ("", "", "http://h/a/b.txt?x=1", "b.txt"),
        ("", "", "http://h/", "__unnamed__"),
        ("", "", "http://h/a/..", "__unnamed__"),
        ("", 'attachment; filename="../../etc/passwd"', "http://h/x", "passwd"),
        ("", 'attachment; filename=".."', "http://h/x", "x"),
        ("", "", "http://h/a%2f..%2f..%2fb", "b"),
        ("given/../name", "", "http://h/x", "name"),
        ("", "", "http://h/a\\b", "b"),
        ("", "", "http://h/" + "n" * 300, "__unnamed__"),
    ],
)
def test_names_are_one_path_element(given: str, disposition: str, url: str, name: str) -> None:
    assert safe_name(given, disposition, url) == name


def test_dates() -> None:
    assert parse_date(MODIFIED) == 1577836800
    assert parse_date("rubbish") == parse_date("") == 0
