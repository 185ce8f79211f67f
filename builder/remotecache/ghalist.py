"""The keys of a repository's cache entries, by GitHub's REST API: one question instead of one per blob."""

from __future__ import annotations

import json
import threading
from urllib.parse import quote, urlencode

from builder.errors import RegistryError
from builder.remotecache.ghaservice import VERSION
from builder.remotecache.service import Call, Service

_PREFIX = "buildkit-blob-1-"
_PER_PAGE = 100
_MAX_PAGES = 100
_MAX_PAGE_BYTES = 1 << 20


class Listing:
    """Asked once; what cannot be listed is None, and each key has to be looked for."""

    def __init__(self, service: Service, api: str, repository: str, token: str) -> None:
        self._service = service
        self._url = f"{api}/repos/{quote(repository)}/actions/caches"
        self._token = token
        self._lock = threading.Lock()
        self._asked = False
        self._keys: frozenset[str] | None = None

    def keys(self, scopes: tuple[str, ...]) -> frozenset[str] | None:
        """The keys of blobs in these scopes."""
        with self._lock:
            if not self._asked:
                self._asked = True
                try:
                    self._keys = frozenset(key for scope in scopes for key in self._in(scope))
                except (RegistryError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
                    self._keys = None
            return self._keys

    def _in(self, scope: str) -> list[str]:
        found: list[str] = []
        for page in range(1, _MAX_PAGES + 1):
            fields = {"key": _PREFIX, "ref": scope, "per_page": _PER_PAGE, "page": page}
            query = urlencode(fields)
            reply = self._service.ask(
                lambda query=query: Call(  # type: ignore[misc]
                    method="GET",
                    url=f"{self._url}?{query}",
                    headers=(("Accept", "application/vnd.github+json"),),
                    authorization=f"Bearer {self._token}",
                ),
                limit=_MAX_PAGE_BYTES,
            )
            items = json.loads(reply.data)["actions_caches"]
            found += [str(item["key"]) for item in items if item.get("version") == VERSION]
            if len(items) < _PER_PAGE:
                break
        return found
