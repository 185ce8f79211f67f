"""What the token of a workflow run says: which caches it may read and write, and until when.

It is not verified: the service does that, for us it is a pass that somebody gave us.
"""

from __future__ import annotations

import base64
import binascii
import json
import time
from dataclasses import dataclass
from typing import Any

from builder.errors import InvalidValue, Unauthorized

_WRITE = 2
_MAX_SCOPES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Scopes:
    """Scopes, like branches, whose caches may be read, in the token's order; and the one to write to ("" =
    none).
    """

    readable: tuple[str, ...]
    writable: str = ""


def scopes_of(token: str) -> Scopes:
    """Raises InvalidValue; Unauthorized for a token that is no longer good."""
    claims = _claims(token)
    expires = claims.get("exp")
    if isinstance(expires, (int, float)) and time.time() > expires:
        raise Unauthorized("the token of the cache service has expired", hint="tokens end with their job")
    try:
        entries = json.loads(claims["ac"])
        found = [(str(entry["Scope"]), int(entry["Permission"])) for entry in entries[:_MAX_SCOPES]]
    except (KeyError, ValueError, TypeError, RecursionError):
        raise InvalidValue("the token of the cache service has no scopes") from None
    writable = [scope for scope, permission in found if permission & _WRITE]
    return Scopes(readable=tuple(scope for scope, _ in found), writable=writable[-1] if writable else "")


def _claims(token: str) -> dict[str, Any]:
    parts = token.split(".")
    try:
        value = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (IndexError, binascii.Error, ValueError, RecursionError):
        value = None
    if len(parts) != 3 or not isinstance(value, dict):
        raise InvalidValue("the token of the cache service is not one", hint="want $ACTIONS_RUNTIME_TOKEN")
    return value
