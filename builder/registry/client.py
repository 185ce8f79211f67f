"""Questions to a registry (OCI distribution-spec 1.1): manifests, blobs, tags, referrers.

Every document is bounded and every byte verified against the digest that names it. One client serves many
threads; connections and tokens are shared by all users of equal settings (``client_for``).
"""

from __future__ import annotations

import functools
import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlencode, urljoin, urlsplit

from builder.errors import (
    DigestMismatch,
    InvalidValue,
    NotFoundInRegistry,
    RegistryError,
)
from builder.oci.descriptor import DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Descriptor
from builder.oci.digest import Digest
from builder.oci.manifest import MAX_DOCUMENT_BYTES, Index, parse_document
from builder.oci.reference import Reference
from builder.registry.announce import tell
from builder.registry.download import Download, Sink, range_header
from builder.registry.hosts import Endpoint, RegistryConfig, endpoints
from builder.registry.http import Body, HttpClient, Pairs, Response
from builder.registry.replies import failure, media_type, next_link
from builder.registry.retry import Retrier
from builder.registry.tokens import Authenticator

ACCEPT = ", ".join((OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX))
MAX_TAG_PAGES = 1000
_NOT_ACCEPTED = "schema 1 images are obsolete: push the image again with a current tool"


@functools.cache
def client_for(config: RegistryConfig) -> RegistryClient:
    """The client of this process for these settings."""
    return RegistryClient(config)


class RegistryClient:
    """Speaks to any number of registries with one configuration."""

    def __init__(self, config: RegistryConfig, *, retrier: Retrier | None = None) -> None:
        self.config = config
        self._http = HttpClient(
            user_agent=config.user_agent,
            timeout_s=config.timeout_s,
            proxies=config.proxies,
            no_proxy=config.no_proxy,
        )
        self._auth = Authenticator(self._http)
        self.retrier = retrier or Retrier(config.retry_waits_s, on_retry=tell)
        self._plain: set[str] = set()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close pooled connections."""
        self._http.close()

    # -- places --------------------------------------------------------------------------------------------

    def places(self, ref: Reference, *, pull: bool) -> tuple[Endpoint, ...]:
        """Where ``ref`` may be asked for: mirrors too when pulling."""
        found = endpoints(self.config, ref.registry, ref.repository)
        return found if pull else found[-1:]

    def _anywhere(self, ref: Reference, ask: Callable[[Endpoint], Any]) -> Any:
        """``ask`` each place in turn; the last failure counts."""
        places = self.places(ref, pull=True)
        for place in places[:-1]:
            try:
                return ask(place)
            except RegistryError:
                continue  # a mirror that cannot serve is no failure
        return ask(places[-1])

    # -- one request ---------------------------------------------------------------------------------------

    def url(self, place: Endpoint, path: str) -> str:
        """The address of ``/v2/<repository>/<path>``."""
        scheme = "http" if place.host in self._plain else place.scheme
        return f"{scheme}://{place.host}/v2/{quote(place.repository)}/{path}"

    def send(
        self,
        method: str,
        place: Endpoint,
        url: str,
        *,
        scopes: tuple[str, ...],
        headers: Pairs = (),
        body: bytes | Body | None = None,
        ok: tuple[int, ...] = (200,),
        follow: bool = True,
    ) -> Response:
        """One request with authentication, no repetition; other statuses than ``ok`` raise RegistryError."""
        # An upload, a next page or a redirect may point elsewhere: nothing secret goes there.
        own = urlsplit(url).netloc == place.host
        headers = (*(self.config.docker.http_headers if own else ()), *headers)
        authorization = self._auth.known(url, scopes) if own else ""
        attempt = 0
        while True:
            attempt += 1
            response = self._open(method, place, url, headers, authorization, body, follow=follow)
            answerable = own and urlsplit(response.url).netloc == place.host
            if response.status != 401 or not answerable or attempt == 3:
                break
            challenge = response.header("WWW-Authenticate")
            response.drain()
            credentials = self.config.docker.credentials(place.registry, place.repository)
            authorization = self._auth.answer(
                url, challenge, scopes, credentials, refused=authorization, tls=place.tls
            )
        if response.status in ok:
            return response
        with response:
            raise failure(response, place)

    def _open(
        self,
        method: str,
        place: Endpoint,
        url: str,
        headers: Pairs,
        authorization: str,
        body: bytes | Body | None,
        *,
        follow: bool,
    ) -> Response:
        def go(address: str) -> Response:
            return self._http.open(
                method,
                address,
                headers=headers,
                authorization=authorization,
                body=body,
                tls=place.tls,
                allow_http=place.scheme == "http" or place.insecure,
                follow=follow,
            )

        try:
            return go(url)
        except RegistryError as error:
            if not (place.insecure and url.startswith(f"https://{place.host}/") and error.status is None):
                raise
            response = go("http" + url.removeprefix("https"))
            with self._lock:
                self._plain.add(place.host)
            return response

    def ping(self, registry: str) -> None:
        """Check that ``registry`` speaks the protocol and accepts the credentials kept for it (REG-PING)."""
        place = endpoints(self.config, registry, "x")[-1]
        url = f"{place.base}/v2/"
        self.retrier.run(lambda: self.send("GET", place, url, scopes=()).drain())

    # -- documents -----------------------------------------------------------------------------------------

    def resolve(self, ref: Reference) -> Descriptor:
        """The descriptor that ``ref`` names now, without fetching the document when the registry allows."""

        def ask(place: Endpoint) -> Descriptor:
            url = self.url(place, f"manifests/{_target(ref)}")
            with self.send(
                "HEAD", place, url, scopes=pull_scope(place), headers=(("Accept", ACCEPT),)
            ) as response:
                digest, length = response.header("Docker-Content-Digest"), response.length
                kind = media_type(response)
            if not digest or length is None or not kind:
                return self._get_manifest(place, ref)[0]
            found = Digest.parse(digest)
            if ref.digest is not None and found != ref.digest:
                raise DigestMismatch(f"{ref}: registry answered with digest {found}")
            return Descriptor(media_type=kind, digest=found, size=_bounded(length, ref))

        result: Descriptor = self._anywhere(ref, lambda place: self.retrier.run(lambda: ask(place)))
        return result

    def manifest(self, ref: Reference) -> tuple[Descriptor, bytes]:
        """The manifest or index that ``ref`` names, verified and parsed once to be sure of its kind."""
        result: tuple[Descriptor, bytes] = self._anywhere(
            ref, lambda place: self.retrier.run(lambda: self._get_manifest(place, ref))
        )
        return result

    def _get_manifest(self, place: Endpoint, ref: Reference) -> tuple[Descriptor, bytes]:
        url = self.url(place, f"manifests/{_target(ref)}")
        with self.send(
            "GET", place, url, scopes=pull_scope(place), headers=(("Accept", ACCEPT),)
        ) as response:
            kind = media_type(response)
            data = response.read(MAX_DOCUMENT_BYTES)
        digest = Digest.of(data)
        if ref.digest is not None:
            digest = _digest_as(ref.digest, data)
            if digest != ref.digest:
                raise DigestMismatch(f"{ref}: registry sent a document with digest {digest}")
        if "docker.distribution.manifest.v1" in kind:
            raise InvalidValue(f"{ref}: schema 1 manifest", hint=_NOT_ACCEPTED)
        try:
            document = parse_document(data, kind if "json" in kind and kind != "application/json" else "")
        except InvalidValue as error:
            raise InvalidValue(f"{ref}: {error.message}", hint=error.hint) from error
        return Descriptor(media_type=document.media_type, digest=digest, size=len(data)), data

    def tags(self, ref: Reference) -> tuple[str, ...]:
        """All tags of the repository."""
        place = self.places(ref, pull=False)[0]
        names: list[str] = []
        url = self.url(place, "tags/list")
        for _ in range(MAX_TAG_PAGES):
            value, link = self._json(place, url)
            tags = value.get("tags") or []
            names.extend(str(tag) for tag in tags if isinstance(tag, str))
            if not link:
                return tuple(dict.fromkeys(names))
            url = urljoin(url, link)
        raise RegistryError(f"{ref.name}: list of tags does not end")

    def referrers(self, ref: Reference, digest: Digest, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """Manifests whose subject is ``digest``; falls back to the tag schema on older registries."""
        place = self.places(ref, pull=False)[0]
        query = f"?{urlencode({'artifactType': artifact_type})}" if artifact_type else ""
        try:
            value, _ = self._json(place, self.url(place, f"referrers/{digest}{query}"))
            items = value.get("manifests") or []
            found = tuple(Descriptor.from_json(item) for item in items) if isinstance(items, list) else ()
        except NotFoundInRegistry:
            fallback = replace(ref, tag=f"{digest.algorithm}-{digest.hex}", digest=None)
            try:
                _, data = self.manifest(fallback)
            except NotFoundInRegistry:
                return ()
            document = parse_document(data)
            found = document.manifests if isinstance(document, Index) else ()
        return tuple(item for item in found if not artifact_type or item.artifact_type == artifact_type)

    def _json(self, place: Endpoint, url: str) -> tuple[dict[str, Any], str]:
        def ask() -> tuple[dict[str, Any], str]:
            with self.send("GET", place, url, scopes=pull_scope(place)) as response:
                data, link = response.read(MAX_DOCUMENT_BYTES), response.header("Link")
            try:
                value = json.loads(data)
            except (ValueError, RecursionError) as error:
                raise RegistryError(f"{response.request}: reply is not valid JSON") from error
            return (value if isinstance(value, dict) else {}), next_link(link)

        return self.retrier.run(ask)

    # -- blobs ---------------------------------------------------------------------------------------------

    def has_blob(self, place: Endpoint, digest: Digest, *, scopes: tuple[str, ...] | None = None) -> bool:
        """Whether the repository holds the blob."""

        def ask() -> bool:
            url = self.url(place, f"blobs/{digest}")
            asked = pull_scope(place) if scopes is None else scopes
            with self.send("HEAD", place, url, scopes=asked, ok=(200, 404)) as response:
                return response.status == 200

        return self.retrier.run(ask)

    def blob(self, ref: Reference) -> Descriptor:
        """The descriptor of the blob that ``ref`` names by digest, its size asked for."""
        assert ref.digest is not None
        digest = ref.digest

        def ask(place: Endpoint) -> Descriptor:
            url = self.url(place, f"blobs/{digest}")
            with self.send("HEAD", place, url, scopes=pull_scope(place)) as response:
                length = response.length
            if length is None:
                raise RegistryError(f"{response.request}: no Content-Length", request=response.request)
            return Descriptor(media_type="application/octet-stream", digest=digest, size=length)

        result: Descriptor = self._anywhere(ref, lambda place: self.retrier.run(lambda: ask(place)))
        return result

    def fetch_blob(
        self,
        ref: Reference,
        descriptor: Descriptor,
        sink: Sink,
        *,
        on_bytes: Callable[[int], None] | None = None,
        verify: bool = True,
    ) -> None:
        """Write the blob to ``sink``, going on by range after a broken connection (REG-05).

        Exactly ``descriptor.size`` bytes are written or an error is raised; the digest of the whole is
        checked too, unless ``verify`` is False because the sink does it. Blobs with foreign URLs are tried
        there, without credentials, after the registry.
        """
        state = Download(descriptor, sink, on_bytes, verify=verify)
        places = self.places(ref, pull=True)
        sources: list[Callable[[int], Response]] = [
            functools.partial(self._blob_from, p, descriptor) for p in places
        ]
        sources += [functools.partial(self._blob_from_url, url) for url in descriptor.urls]
        last: RegistryError | None = None
        for source in sources:
            try:
                self._download(source, state)
            except RegistryError as error:
                last = error if last is None or not isinstance(error, NotFoundInRegistry) else last
                continue
            state.finish()
            return
        assert last is not None
        raise last

    def _download(self, source: Callable[[int], Response], state: Download) -> None:
        waits = list(self.retrier.attempts())
        while not state.complete:
            before = state.done
            try:
                with source(state.done) as response:
                    state.take(response)
            except RegistryError as error:
                if state.done > before:
                    waits = list(self.retrier.attempts())  # it moved: start counting again
                if not waits:
                    raise
                self.retrier.pause(error, waits.pop(0))

    def _blob_from(self, place: Endpoint, descriptor: Descriptor, offset: int) -> Response:
        url = self.url(place, f"blobs/{descriptor.digest}")
        return self.send(
            "GET", place, url, scopes=pull_scope(place), headers=range_header(offset), ok=(200, 206)
        )

    def _blob_from_url(self, url: str, offset: int) -> Response:
        if not url.startswith(("https://", "http://")):
            raise RegistryError(f"foreign layer address {url[:200]!r} is not a web address")
        response = self._http.open("GET", url, headers=range_header(offset), allow_http=False)
        if response.status not in (200, 206):
            with response:
                raise failure(response, None)
        return response


def pull_scope(place: Endpoint) -> tuple[str, ...]:
    """The scope to read a repository."""
    return (f"repository:{place.repository}:pull",)


def push_scope(place: Endpoint, *sources: str) -> tuple[str, ...]:
    """The scope to write a repository and to read the repositories that blobs are mounted from."""
    own = f"repository:{place.repository}:pull,push"
    return (own, *(f"repository:{name}:pull" for name in sorted(set(sources)) if name != place.repository))


def _target(ref: Reference) -> str:
    return str(ref.digest) if ref.digest is not None else (ref.tag or "latest")


def _bounded(size: int, ref: Reference) -> int:
    if size > MAX_DOCUMENT_BYTES:
        raise InvalidValue(
            f"{ref}: manifest of {size} bytes is larger than the limit of {MAX_DOCUMENT_BYTES}"
        )
    return size


def _digest_as(wanted: Digest, data: bytes) -> Digest:
    return Digest(wanted.algorithm, hashlib.new(wanted.algorithm, data).hexdigest())
