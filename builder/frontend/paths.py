"""Paths inside images as text: cleaned and joined without looking at any disk."""

from __future__ import annotations


def clean(path: str) -> str:
    """The shortest equal path: no ``.``, ``//`` or resolvable ``..``; "" becomes "."."""
    rooted = path.startswith("/")
    if rooted and len(path) > 1 and "//" not in path and "/." not in path and not path.endswith("/"):
        return path
    out: list[str] = []
    for part in path.split("/"):
        if part in ("", "."):
            continue
        if part == "..":
            if out and out[-1] != "..":
                out.pop()
            elif not rooted:
                out.append(part)
            continue
        out.append(part)
    joined = "/".join(out)
    return "/" + joined if rooted else joined or "."


def absolute(base: str, path: str) -> str:
    """``path`` seen from ``base``, cleaned."""
    return clean(
        path
        if path.startswith("/")
        else f"{base or '/'}/{path}"
        if base.startswith("/")
        else f"/{base}/{path}"
    )


def base_name(path: str) -> str:
    """The last element, "" for the root."""
    return path.rstrip("/").rpartition("/")[2]
