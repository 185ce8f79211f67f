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


def for_platform(path: str, os_name: str) -> str:
    """A path of an instruction with slashes and without a drive: on Windows ``C:\\app\\`` is ``/app/``.

    Elsewhere a backslash is a character like others. Raises ValueError for what is not on the system drive.
    """
    if os_name != "windows":
        return path
    slashed = path.replace("\\", "/")
    if len(slashed) == 2 and slashed[1] == ":":
        raise ValueError(f'no relative path specified in "{path}"')
    if slashed.startswith("//"):
        raise ValueError(f'UNC paths are not supported: "{path}"')
    drive, colon, rest = slashed.partition(":")
    if not colon:
        return slashed
    if drive.lower() != "c":
        raise ValueError(f'the path "{path}" is not on the system drive (C:)')
    return rest
