"""Copying as a tar stream: out of a container (``cp NAME:PATH -``), into one (``cp - NAME:PATH``)."""

from __future__ import annotations

import os
import stat
import tarfile
from typing import IO

from runtime.cp import CopyFailed, Ownership, Sink, Source, base_name, content_only, find_source, join

_CHUNK = 1 << 20


def write_tar(source: Source, source_path: str, out: IO[bytes], *, follow: bool = False) -> None:
    """The entry and what is below it as a tar stream, named by its last part (``cp CONTAINER:PATH -``)."""
    where, status = find_source(source, source_path, follow=follow)
    name = "." if content_only(source_path) else base_name(source_path) or base_name(where) or "."
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        _add(archive, source, where, name, status, {})


def _add(
    archive: tarfile.TarFile,
    source: Source,
    path: str,
    name: str,
    status: os.stat_result,
    links: dict[tuple[int, int], str],
) -> None:
    info = tarfile.TarInfo(name)
    info.mode, info.uid, info.gid = stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
    info.mtime = status.st_mtime_ns // 1_000_000_000
    if stat.S_ISDIR(status.st_mode):
        info.type = tarfile.DIRTYPE
        archive.addfile(info)
        for entry, below in source.scandir(path):
            _add(archive, source, join(path, entry), f"{name}/{entry}", below, links)
        return
    if stat.S_ISSOCK(status.st_mode):
        return
    known = links.get((status.st_dev, status.st_ino)) if status.st_nlink > 1 else None
    if known is not None:
        info.type, info.linkname = tarfile.LNKTYPE, known
        archive.addfile(info)
        return
    links[status.st_dev, status.st_ino] = name
    if stat.S_ISREG(status.st_mode):
        fd = source.open(path)
        with open(fd, "rb") as file:
            info.size = os.fstat(fd).st_size
            archive.addfile(info, file)
        return
    if stat.S_ISLNK(status.st_mode):
        info.type, info.linkname = tarfile.SYMTYPE, source.readlink(path)
    else:
        info.type = {stat.S_IFCHR: tarfile.CHRTYPE, stat.S_IFBLK: tarfile.BLKTYPE}.get(
            stat.S_IFMT(status.st_mode), tarfile.FIFOTYPE
        )
        info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    archive.addfile(info)


def read_tar(stream: IO[bytes], sink: Sink, target_path: str, ownership: Ownership) -> int:
    """Unpack a tar stream (plain, gzip, bzip2 or xz, in this process) into an existing directory.

    Names are taken inside the directory: leading slashes and ``..`` go no further than its top, and links
    that the archive or the container put in the way are resolved as the container would. Returns the number
    of entries.
    """
    target = sink.resolve(target_path)
    status = sink.lstat(target)
    if status is None or not stat.S_ISDIR(status.st_mode):
        raise CopyFailed(f"the destination of an archive must be a directory: {target_path}")
    count = 0
    try:
        with tarfile.open(fileobj=stream, mode="r|*") as archive:
            directories: list[tuple[str, tarfile.TarInfo]] = []
            for info in archive:
                _extract(archive, info, sink, target, ownership, directories)
                count += 1
            for path, info in reversed(directories):
                sink.set_meta(path, mode=info.mode & 0o7777, mtime_ns=int(info.mtime) * 1_000_000_000)
    except (tarfile.TarError, EOFError) as error:
        raise CopyFailed(f"not a usable tar stream: {error}", code="invalid-archive") from error
    return count


def _extract(
    archive: tarfile.TarFile,
    info: tarfile.TarInfo,
    sink: Sink,
    base: str,
    ownership: Ownership,
    directories: list[tuple[str, tarfile.TarInfo]],
) -> None:
    path = _entry_path(sink, base, info.name)
    if path == base:
        return
    uid, gid = (info.uid, info.gid) if ownership.archive else (ownership.uid, ownership.gid)
    mode, mtime_ns = info.mode & 0o7777, int(info.mtime) * 1_000_000_000
    existing = sink.lstat(path)
    if existing is not None and stat.S_ISDIR(existing.st_mode) != info.isdir():
        raise CopyFailed(f"cannot overwrite /{path}: one is a directory and the other is not")
    if info.isdir():
        if sink.mkdir(path, mode | 0o700, uid, gid):
            directories.append((path, info))
    elif info.isreg():
        file = archive.extractfile(info)
        assert file is not None
        chunks = iter(lambda: file.read(_CHUNK), b"")
        sink.write_file(path, chunks, mode, uid, gid, mtime_ns=mtime_ns)
    elif info.issym():
        sink.symlink(path, info.linkname, uid, gid, mtime_ns=mtime_ns)
    elif info.islnk():
        sink.link(path, _entry_path(sink, base, info.linkname))
    else:
        kind = {tarfile.CHRTYPE: stat.S_IFCHR, tarfile.BLKTYPE: stat.S_IFBLK}.get(info.type, stat.S_IFIFO)
        sink.mknod(path, kind | mode, os.makedev(info.devmajor, info.devminor), uid, gid, mtime_ns=mtime_ns)


def _entry_path(sink: Sink, base: str, name: str) -> str:
    """Where an archive's entry goes: its parent resolved inside the tree and made when missing, its name
    kept.
    """
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    if not parts:
        return base
    parent = sink.resolve("/".join([base, *parts[:-1]]) if base else "/".join(parts[:-1]))
    status = sink.lstat(parent)
    if status is None:
        _make_parents(sink, parent)
    return join(parent, parts[-1])


def _make_parents(sink: Sink, path: str) -> None:
    done = ""
    for part in path.split("/"):
        done = join(done, part)
        if sink.lstat(done) is None:
            sink.mkdir(done, 0o755, 0, 0)
