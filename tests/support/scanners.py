"""A scanner's image, made from busybox: it lists the files that it sees as SPDX documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.buildlab import Lab

SCRIPT = """\
#!/bin/sh
set -e
list() {
  files=""
  for file in $(cd $2 && find . -type f | sort | head -30); do files="$files{\\"fileName\\":\\"${file#.}\\"},"; done
  printf '{"predicateType":"https://spdx.dev/Document","predicate":{"spdxVersion":"SPDX-2.3","name":"%s","args":"%s","files":[%s]}}' \\
    "$1" "$BUILDKIT_SCAN_EXTRA" "${files%,}" > $BUILDKIT_SCAN_DESTINATION/$1.spdx.json
}
touch $BUILDKIT_SCAN_SOURCE/w 2>/dev/null && exit 3
touch /tmp/x
list sbom $BUILDKIT_SCAN_SOURCE
[ -z "$BUILDKIT_SCAN_SOURCE_EXTRAS" ] || for place in $BUILDKIT_SCAN_SOURCE_EXTRAS*; do list $(basename $place) $place; done
echo other > $BUILDKIT_SCAN_DESTINATION/notes.txt
"""


def make_scanner(lab: Lab, name: str, script: str = SCRIPT) -> str:
    """Build a scanner; gives the attributes that ask for it."""
    text = 'FROM busybox\nCOPY --chmod=755 scan /scan\nENTRYPOINT ["/bin/sh"]\nCMD ["/scan"]\n'
    lab.build(lab.context({"scan": script}), text, tags=(name,))
    return f"type=sbom,generator={name}"


class Layout:
    """An OCI layout directory with one image or index in it, under any number of names."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (digest,) = {entry["digest"] for entry in json.loads((path / "index.json").read_bytes())["manifests"]}
        self.root = self.read(digest)

    def read(self, digest: str) -> Any:
        """A JSON blob."""
        return json.loads((self.path / "blobs" / digest.replace(":", "/")).read_bytes())

    def notes(self) -> list[dict[str, Any]]:
        """The entries of attestation manifests."""
        return [entry for entry in self.root["manifests"] if entry["platform"]["os"] == "unknown"]

    def statements(self, number: int = 0) -> list[dict[str, Any]]:
        """The statements about one platform."""
        manifest = self.read(self.notes()[number]["digest"])
        return [self.read(layer["digest"]) for layer in manifest["layers"]]

    def predicate(self, kind: str) -> dict[str, Any]:
        """The first predicate whose type has ``kind`` in it."""
        found = next(item for item in self.statements() if kind in item["predicateType"])
        return found["predicate"]  # type: ignore[no-any-return]


def attested(lab: Lab, context: Path | str, out: Path, *attest: str, output: str = "", **more: Any) -> Layout:
    """Build into a layout."""
    from builder.exporter.types import OutputSpec

    spec = OutputSpec.parse(f"type=oci,tar=false,dest={out}{output}")
    lab.build(context, outputs=(spec,), attest=attest, **more)
    return Layout(out)
