"""Image references: ``[registry/]repository[:tag][@digest]`` (distribution reference grammar; IMG-11…13)."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from builder.errors import InvalidValue
from builder.oci.digest import Digest

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"

_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")
_HOST = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*"
    r"|\[[0-9a-fA-F:]+\])(?::[0-9]+)?\Z"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A normalised image name: the registry, and on the default one ``library/``, are filled in."""

    registry: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read a name as typed; ``tag`` stays None when there is none. Raises InvalidValue."""
        rest, at, digest_text = text.partition("@")
        digest = Digest.parse(digest_text) if at else None
        head, slash, last = rest.rpartition("/")
        name, colon, tag = last.partition(":")
        tag_or_none = tag if colon else None
        path = f"{head}{slash}{name}"
        first, _, remainder = path.partition("/")
        if remainder and ("." in first or ":" in first or first == "localhost" or first.lower() != first):
            registry, repository = first, remainder
        else:
            registry, repository = DEFAULT_REGISTRY, path
        if registry in ("index.docker.io", "registry-1.docker.io"):
            registry = DEFAULT_REGISTRY
        if registry == DEFAULT_REGISTRY and "/" not in repository:
            repository = f"library/{repository}"
        _check(text, registry, repository, tag_or_none)
        return cls(registry=registry, repository=repository, tag=tag_or_none, digest=digest)

    @property
    def name(self) -> str:
        """Registry and repository, without tag or digest."""
        return f"{self.registry}/{self.repository}"

    @property
    def familiar_name(self) -> str:
        """The name as people write it: no default registry, no ``library/``."""
        if self.registry != DEFAULT_REGISTRY:
            return self.name
        return self.repository.removeprefix("library/")

    @property
    def familiar(self) -> str:
        """The whole reference as people write it."""
        return self.familiar_name + self._suffix()

    def with_default_tag(self) -> Reference:
        """``latest`` when neither tag nor digest is given."""
        return self if self.tag or self.digest else replace(self, tag=DEFAULT_TAG)

    def with_digest(self, digest: Digest) -> Reference:
        """The same name pinned to ``digest``."""
        return replace(self, digest=digest)

    def __str__(self) -> str:
        return self.name + self._suffix()

    def _suffix(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{tag}@{self.digest}" if self.digest else tag


def _check(text: str, registry: str, repository: str, tag: str | None) -> None:
    if not _HOST.match(registry):
        raise InvalidValue(f"invalid reference format: {text[:200]!r}: bad registry host {registry[:80]!r}")
    if repository != repository.lower():
        raise InvalidValue(f"invalid reference format: repository name ({text[:200]}) must be lowercase")
    if len(repository) > 255 or not all(_COMPONENT.match(part) for part in repository.split("/")):
        raise InvalidValue(
            f"invalid reference format: {text[:200]!r}", hint="want [registry/]name[:tag][@digest]"
        )
    if tag is not None and not _TAG.match(tag):
        raise InvalidValue(f"invalid reference format: {text[:200]!r}: bad tag {tag[:140]!r}")
