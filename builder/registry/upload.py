"""Writing to a registry: blobs in one piece or in chunks, mounted from elsewhere when possible, and
manifests."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO
from urllib.parse import quote, urljoin

from builder.errors import RegistryError
from builder.oci.descriptor import Descriptor
from builder.oci.digest import Digest
from builder.registry.client import RegistryClient, push_scope
from builder.registry.hosts import Endpoint
from builder.registry.http import Body, Response

DEFAULT_CHUNK_BYTES = 16 * 1024 * 1024
_TOO_LARGE = 413


class Uploader:
    """Writes to one repository."""

    def __init__(self, client: RegistryClient, place: Endpoint) -> None:
        self._client = client
        self.place = place
        self._scopes = push_scope(place)

    def has_blob(self, digest: Digest) -> bool:
        """Whether the blob is there already."""
        return self._client.has_blob(self.place, digest, scopes=self._scopes)

    def mount(self, digest: Digest, source: str) -> bool:
        """Make a blob of repository ``source`` on the same registry appear here; False when refused."""
        scopes = push_scope(self.place, source)
        url = self._client.url(self.place, f"blobs/uploads/?mount={digest}&from={quote(source, safe='')}")
        try:
            response = self._client.retrier.run(
                lambda: self._client.send("POST", self.place, url, scopes=scopes, ok=(201, 202))
            )
        except RegistryError:
            return False  # no right to read the source, or no such feature: upload instead
        with response:
            if response.status == 201:
                return True
            self._cancel(urljoin(url, response.header("Location")))
        return False

    def upload(
        self,
        descriptor: Descriptor,
        opener: Callable[[], BinaryIO],
        on_bytes: Callable[[int], None] | None = None,
    ) -> None:
        """Send a blob; again from its start after a temporary failure. Raises RegistryError."""
        chunk = self._client.config.chunk_bytes

        def once() -> None:
            location = self._start()
            if chunk:
                self._chunked(location, descriptor, opener, chunk, on_bytes)
                return
            try:
                self._put(location, descriptor, opener, on_bytes)
            except RegistryError as error:
                if error.status != _TOO_LARGE or descriptor.size <= 1024:
                    raise
                self._chunked(self._start(), descriptor, opener, DEFAULT_CHUNK_BYTES, on_bytes)

        self._client.retrier.run(once)

    def put_manifest(self, target: str, data: bytes, media_type: str) -> None:
        """Publish a manifest or index under a tag or its digest; checks the digest that comes back."""
        url = self._client.url(self.place, f"manifests/{target}")
        headers = (("Content-Type", media_type),)

        def once() -> str:
            with self._client.send(
                "PUT", self.place, url, scopes=self._scopes, headers=headers, body=data, ok=(201, 200, 202)
            ) as response:
                return response.header("Docker-Content-Digest")

        answered = self._client.retrier.run(once)
        if answered.startswith("sha256:") and answered != str(Digest.of(data)):
            raise RegistryError(
                f"{self.place.registry} stored the manifest under another digest: {answered[:100]}"
            )

    def _start(self) -> str:
        url = self._client.url(self.place, "blobs/uploads/")
        with self._client.send("POST", self.place, url, scopes=self._scopes, ok=(202,)) as response:
            return self._location(url, response)

    def _location(self, url: str, response: Response) -> str:
        location = response.header("Location")
        if not location:
            raise RegistryError(f"{response.request}: no upload location in reply", request=response.request)
        target = urljoin(url, location)
        if not target.startswith(("http://", "https://")) or (
            target.startswith("http://") and url.startswith("https://") and not self.place.insecure
        ):
            raise RegistryError(
                f"{response.request}: upload location is not acceptable", request=response.request
            )
        return target

    def _put(
        self,
        location: str,
        descriptor: Descriptor,
        opener: Callable[[], BinaryIO],
        on_bytes: Callable[[int], None] | None,
    ) -> None:
        body = Body(open=opener, size=descriptor.size, on_sent=on_bytes)
        headers = (("Content-Type", "application/octet-stream"),)
        url = _with_digest(location, descriptor.digest)
        with self._client.send(
            "PUT", self.place, url, scopes=self._scopes, headers=headers, body=body, ok=(201, 204)
        ):
            pass

    def _chunked(
        self,
        location: str,
        descriptor: Descriptor,
        opener: Callable[[], BinaryIO],
        chunk: int,
        on_bytes: Callable[[int], None] | None,
    ) -> None:
        done = 0
        with opener() as file:
            while done < descriptor.size:
                data = file.read(min(chunk, descriptor.size - done))
                if not data:
                    raise RegistryError(f"blob {descriptor.digest} ended after {done} bytes")
                headers = (
                    ("Content-Type", "application/octet-stream"),
                    ("Content-Range", f"{done}-{done + len(data) - 1}"),
                )
                with self._client.send(
                    "PATCH",
                    self.place,
                    location,
                    scopes=self._scopes,
                    headers=headers,
                    body=data,
                    ok=(202, 204),
                ) as response:
                    location = self._location(location, response)
                done += len(data)
                if on_bytes is not None:
                    on_bytes(done)
        url = _with_digest(location, descriptor.digest)
        with self._client.send("PUT", self.place, url, scopes=self._scopes, ok=(201, 204)):
            pass

    def _cancel(self, location: str) -> None:
        try:
            self._client.send(
                "DELETE", self.place, location, scopes=self._scopes, ok=(200, 202, 204, 404)
            ).drain()
        except RegistryError:
            pass


def _with_digest(location: str, digest: Digest) -> str:
    return f"{location}{'&' if '?' in location else '?'}digest={quote(str(digest), safe='')}"
