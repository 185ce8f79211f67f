"""in-toto statements and the names of what they are about (ATT-02, ATT-03, EXL-04)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from builder.attest.types import Subject
from builder.oci.canonical import compact_json
from builder.oci.digest import Digest
from builder.oci.platform import Platform, normalize
from builder.oci.reference import Reference

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
MEDIA_TYPE = "application/vnd.in-toto+json"
PREDICATE_ANNOTATION = "in-toto.io/predicate-type"
SPDX = "https://spdx.dev/Document"
SLSA_V1 = "https://slsa.dev/provenance/v1"
SLSA_V02 = "https://slsa.dev/provenance/v0.2"


def statement(predicate_type: str, predicate: Mapping[str, Any], subjects: Iterable[Subject]) -> bytes:
    """A statement as it is published."""
    return compact_json(
        {
            "_type": STATEMENT_TYPE,
            "predicateType": predicate_type,
            "subject": [subject.to_json() for subject in subjects],
            "predicate": predicate,
        }
    )


def package_url(reference: Reference, platform: Platform | None, *, kind: str = "docker") -> str:
    """``pkg:docker/busybox@latest?platform=linux%2Famd64``; a digest stands among the qualifiers."""
    reference = reference.with_default_tag()
    name = "/".join(quote(part, safe=":") for part in reference.familiar_name.split("/"))
    version = f"@{quote(reference.tag, safe='')}" if reference.tag else ""
    qualifiers = []
    if reference.digest is not None:
        qualifiers.append(f"digest={quote(str(reference.digest), safe=':')}")
    if platform is not None:
        qualifiers.append(f"platform={quote(str(normalize(platform)), safe='')}")
    return f"pkg:{kind}/{name}{version}" + (f"?{'&'.join(qualifiers)}" if qualifiers else "")


def image_subjects(names: Iterable[Reference], platform: Platform, manifest: Digest) -> tuple[Subject, ...]:
    """An image under each of its names; none without a name."""
    return tuple(
        Subject(name=package_url(name, platform), digest=((manifest.algorithm, manifest.hex),))
        for name in names
    )
