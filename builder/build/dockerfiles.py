"""Dockerfiles and ONBUILD triggers, parsed once per text."""

from __future__ import annotations

from builder.cache.store import Store
from builder.frontend.nodes import FORMAT, Nodes
from builder.frontend.parser import Dockerfile, NodesOf, parse_line, parse_nodes
from builder.frontend.redact import redact
from builder.oci.digest import Digest

NODES_KIND = "dockerfile"


def load_dockerfile(store: Store, data: bytes, name: str) -> Dockerfile:
    """Parse a Dockerfile, or take the nodes of an earlier parse of the same bytes."""
    key = f"{FORMAT}:{Digest.of(data)}"
    known = store.doc(NODES_KIND, key)
    if known is not None:
        return Dockerfile.from_nodes(Nodes.from_bytes(known), data, name)
    nodes = parse_nodes(data, name)
    dockerfile = Dockerfile.from_nodes(nodes, data, name)
    text = data.decode("utf-8", "replace")
    if redact(text) == text:  # credentials in URLs are kept nowhere
        store.put_doc(NODES_KIND, key, nodes.to_bytes())
    return dockerfile


def trigger_nodes(store: Store) -> NodesOf:
    """Triggers of base images, parsed once and kept by their text like Dockerfiles."""

    def nodes(text: str, escape: str) -> Nodes:
        key = f"{FORMAT}:{escape}:{Digest.of(text.encode('utf-8', 'surrogateescape'))}"
        known = store.doc(NODES_KIND, key)
        if known is not None:
            return Nodes.from_bytes(known)
        found = parse_line(text, escape)
        store.put_doc(NODES_KIND, key, found.to_bytes())
        return found

    return nodes
