"""GitHub's cache service on the loopback, both versions: entries by key, seen through the scopes of a token."""

from __future__ import annotations

import base64
import json
import re
import time
from dataclasses import dataclass
from typing import Any

from tests.support.cloudcaches import Answer, Cloud, Refused, Request, ranged

READ, WRITE = 1, 3
_TWIRP = "/twirp/github.actions.results.api.v1.CacheService/"
_REST = "/_apis/artifactcache/"


def token(*scopes: tuple[str, int], lasts_s: float = 3600, salt: str = "canary-gha-token") -> str:
    """A JSON web token as runners give it to jobs; its signature says nothing."""

    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    access = json.dumps([{"Scope": scope, "Permission": permission} for scope, permission in scopes])
    claims = {"ac": access, "exp": time.time() + lasts_s, "nbf": time.time() - 60, "orchid": salt}
    return f"{part({'typ': 'JWT'})}.{part(claims)}.{part(salt)}"


@dataclass
class Item:
    """One entry."""

    key: str
    version: str
    scope: str
    data: bytes = b""
    committed: bool = False


class Actions(Cloud):
    """Entries in the order in which they were reserved; tokens that are good."""

    def __init__(self) -> None:
        super().__init__()
        self.items: list[Item] = []
        self.blocks: dict[int, dict[str, bytes]] = {}
        self.tokens: dict[str, list[tuple[str, int]]] = {}
        self.rest_token = "canary-rest-token"

    def grant(self, *scopes: tuple[str, int], lasts_s: float = 3600) -> str:
        """A token for these scopes."""
        made = token(*scopes, lasts_s=lasts_s)
        self.tokens[made] = list(scopes)
        return made

    def keys(self) -> list[str]:
        return [item.key for item in self.items if item.committed]

    def handle(self, request: Request) -> Answer:
        if request.path.startswith("/signed/"):
            return self._blob(request)
        if request.path.startswith("/repos/"):
            return self._list(request)
        scopes = self.tokens.get(request.headers.get("authorization", "").removeprefix("Bearer "))
        if scopes is None:
            raise Refused(401, "unauthenticated", "invalid token")
        if request.path.startswith(_TWIRP):
            return self._twirp(request, scopes)
        if request.path.startswith(_REST):
            if "api-version=6.0" not in request.headers.get("accept", ""):
                raise Refused(400, "VssVersionNotSpecifiedException")
            return self._rest(request, scopes)
        raise Refused(404, "bad_route")

    def error(self, error: Refused) -> Answer:
        value = {"code": error.code, "typeKey": error.code, "msg": error.text, "message": error.text}
        return Answer(error.status, json.dumps(value).encode())

    # --- entries

    def _find(self, scopes: list[tuple[str, int]], key: str, version: str) -> int | None:
        for scope, _ in scopes:
            there = [
                (item.key == key, number)
                for number, item in enumerate(self.items)
                if item.committed
                and item.scope == scope
                and item.version == version
                and item.key.startswith(key)
            ]
            if there:
                return max(there)[1]
        return None

    def _reserve(self, scopes: list[tuple[str, int]], key: str, version: str) -> int:
        if not re.fullmatch("[0-9a-f]{64}", version) or "," in key or len(key) > 512:
            raise Refused(400, "invalid_argument", "bad key or version")
        writable = [scope for scope, permission in scopes if permission & 2]
        if not writable:
            raise Refused(403, "permission_denied", "the token may only read")
        if any((item.key, item.version, item.scope) == (key, version, writable[-1]) for item in self.items):
            raise Refused(409, "ArtifactCacheItemAlreadyExistsException", "cache entry already exists")
        self.items.append(Item(key, version, writable[-1]))
        return len(self.items) - 1

    def _commit(self, number: int, size: int) -> None:
        item = self.items[number]
        if item.committed or len(item.data) != size:
            raise Refused(400, "invalid_argument", f"{len(item.data)} bytes are here, not {size}")
        item.committed = True

    # --- the services

    def _rest(self, request: Request, scopes: list[tuple[str, int]]) -> Answer:
        path = request.path.removeprefix(_REST)
        if (request.method, path) == ("GET", "cache"):
            number = self._find(scopes, request.query["keys"], request.query["version"])
            if number is None:
                return Answer(204)
            item = self.items[number]
            value = {"cacheKey": item.key, "scope": item.scope, "archiveLocation": self._signed(number)}
            return Answer(200, json.dumps(value).encode())
        if (request.method, path) == ("POST", "caches"):
            value = json.loads(request.body)
            number = self._reserve(scopes, value["key"], value["version"])
            return Answer(201, json.dumps({"cacheId": number}).encode())
        number = int(path.removeprefix("caches/"))
        if request.method == "PATCH":
            span = re.fullmatch(r"bytes (\d+)-(\d+)/\*", request.headers["content-range"])
            assert span is not None
            assert int(span[2]) - int(span[1]) + 1 == len(request.body)
            assert int(span[1]) == len(self.items[number].data)
            self.items[number].data += request.body
        else:
            self._commit(number, json.loads(request.body)["size"])
        return Answer(204)

    def _twirp(self, request: Request, scopes: list[tuple[str, int]]) -> Answer:
        assert request.method == "POST"
        assert request.headers["content-type"] == "application/json"
        method, value = request.path.removeprefix(_TWIRP), json.loads(request.body)
        reply: dict[str, Any] = {"ok": True}
        if method == "GetCacheEntryDownloadURL":
            number = self._find(scopes, value["key"], value["version"])
            if number is None:
                reply = {"ok": False, "signed_download_url": "", "matched_key": ""}
            else:
                reply |= {"signed_download_url": self._signed(number), "matched_key": self.items[number].key}
        elif method == "CreateCacheEntry":
            number = self._reserve(scopes, value["key"], value["version"])
            reply["signed_upload_url"] = self._signed(number)
        else:
            assert method == "FinalizeCacheEntryUpload"
            found = [
                number
                for number, item in enumerate(self.items)
                if (item.key, item.version) == (value["key"], value["version"])
                and item.scope in dict(scopes)
                and not item.committed
            ]
            self._commit(found[-1], value["size_bytes"])
            reply["entry_id"] = str(found[-1])
        return Answer(200, json.dumps(reply).encode())

    def _signed(self, number: int) -> str:
        return f"{self.url}/signed/{number}?sv=2021-08-06&sig=canary-signature-{number}"

    def _blob(self, request: Request) -> Answer:
        """Who has the address may read and write; a token has no place here."""
        number = int(request.path.rpartition("/")[2])
        if request.query.get("sig") != f"canary-signature-{number}" or "authorization" in request.headers:
            raise Refused(403, "AuthenticationFailed")
        item = self.items[number]
        if request.method == "GET":
            return ranged(request, item.data)
        kind = request.query.get("comp")
        if kind == "block":
            self.blocks.setdefault(number, {})[request.query["blockid"]] = request.body
        elif kind == "blocklist":
            listed = re.findall(r"<Latest>([^<]+)</Latest>", request.body.decode())
            item.data = b"".join(self.blocks[number][name] for name in listed)
        else:
            assert request.headers["x-ms-blob-type"] == "BlockBlob"
            item.data = request.body
        return Answer(201)

    def _list(self, request: Request) -> Answer:
        if request.headers.get("authorization") != f"Bearer {self.rest_token}":
            raise Refused(401, "bad_credentials")
        query = request.query
        found = [
            {"key": item.key, "version": item.version, "ref": item.scope}
            for item in self.items
            if item.committed and item.scope == query["ref"] and item.key.startswith(query["key"])
        ]
        start = (int(query["page"]) - 1) * int(query["per_page"])
        page = found[start : start + int(query["per_page"])]
        return Answer(200, json.dumps({"total_count": len(found), "actions_caches": page}).encode())
