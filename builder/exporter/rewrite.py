"""Layers with their times clamped to an epoch (RPR-02): tar in, tar out, nothing unpacked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace

from builder.cache.compression import CHUNK, Decompressor, compressor, media_type
from builder.cache.layer import BLOCK, pad, pax_records
from builder.cache.store import Store
from builder.errors import ExportError
from builder.exporter.types import LayerRef
from builder.oci.descriptor import Descriptor, layer_compression
from builder.oci.digest import DiffId, Digest

_TIMES = (b"mtime", b"atime", b"ctime")
_MAX_PAX_BYTES = 1024 * 1024
_PAX_TYPES = (b"x", b"g")


def rewrite_layers(
    store: Store, layers: Sequence[LayerRef], epoch: int, *, level: int | None = None
) -> tuple[LayerRef, ...]:
    """``layers`` with no entry later than ``epoch`` in those that are not the base's. Raises ExportError."""
    return tuple(layer if layer.base else _rewritten(store, layer, epoch, level) for layer in layers)


def _rewritten(store: Store, layer: LayerRef, epoch: int, level: int | None) -> LayerRef:
    compression = layer_compression(layer.descriptor.media_type)
    key = f"{layer.descriptor.digest} {epoch} {compression} {level}"
    known = store.doc("rewritten-layer", key)
    if known is not None:
        diff_id, digest, size = known.decode().split()
        if store.blobs.has(Digest.parse(digest)):
            return _with_blob(
                layer, DiffId(Digest.parse(diff_id)), Digest.parse(digest), int(size), compression
            )
    packer = compressor(compression, level)
    plain = hashlib.sha256()
    with store.blobs.open(layer.descriptor.digest) as file, store.blobs.writer() as sink:
        held = bytearray()

        def write(data: bytes) -> None:
            plain.update(data)
            held.extend(data)
            while len(held) >= CHUNK:
                sink.write(packer.compress(bytes(held[:CHUNK])))
                del held[:CHUNK]

        clamp_tar(Decompressor(file).read, write, epoch)
        sink.write(packer.compress(bytes(held)) + packer.flush())
        digest_of, size_of = sink.commit()
    diff = DiffId(Digest("sha256", plain.hexdigest()))
    store.put_doc("rewritten-layer", key, f"{diff} {digest_of} {size_of}".encode())
    return _with_blob(layer, diff, digest_of, size_of, compression)


def _with_blob(layer: LayerRef, diff_id: DiffId, digest: Digest, size: int, compression: str) -> LayerRef:
    descriptor = Descriptor(media_type=media_type(compression), digest=digest, size=size)
    return replace(layer, diff_id=diff_id, descriptor=descriptor)


def clamp_tar(read: Callable[[int], bytes], write: Callable[[bytes], object], epoch: int) -> None:
    """Copy a tar, times after ``epoch`` (seconds) replaced by it, in headers and in PAX records."""

    def exactly(size: int) -> bytes:
        data = read(size)
        while len(data) < size:
            more = read(size - len(data))
            if not more:
                raise ExportError("a layer's tar ends in the middle of an entry")
            data += more
        return data

    size_override: int | None = None
    while block := read(BLOCK):
        if len(block) < BLOCK:
            block += exactly(BLOCK - len(block))
        if not block.strip(b"\0"):
            write(block)
            continue
        kind = block[156:157]
        size = _number(block[124:136])
        if kind in _PAX_TYPES:
            if size > _MAX_PAX_BYTES:
                raise ExportError("a layer's tar has an oversized header")
            data = exactly(size + len(pad(size)))[:size]
            records, found_size = _clamped_records(data, epoch)
            size_override = found_size if kind == b"x" else size_override
            if len(records) != size:
                block = _with_field(block, 124, b"%011o\0" % len(records))
            write(_with_checksum(block) + records + pad(len(records)))
            continue
        if size_override is not None:
            size, size_override = size_override, None
        if _number(block[136:148]) > epoch:
            block = _with_checksum(_with_field(block, 136, b"%011o\0" % max(epoch, 0)))
        write(block)
        left = size + len(pad(size))
        while left:
            data = exactly(min(left, CHUNK))
            write(data)
            left -= len(data)


def _clamped_records(data: bytes, epoch: int) -> tuple[bytes, int | None]:
    """PAX records with their times clamped, and the size that they announce."""
    records: dict[str, bytes] = {}
    size: int | None = None
    position = 0
    while position < len(data):
        length_text, space, _ = data[position : position + 20].partition(b" ")
        if (
            not space
            or not length_text.isdigit()
            or position + int(length_text) > len(data)
            or int(length_text) < 4
        ):
            raise ExportError("a layer's tar has a damaged header")
        record = data[position + len(length_text) + 1 : position + int(length_text) - 1]
        position += int(length_text)
        key, _, value = record.partition(b"=")
        if key in _TIMES:
            value = _clamped_text(value, epoch)
        if key == b"size" and value.isdigit():
            size = int(value)
        records[key.decode("utf-8", "surrogateescape")] = value
    return pax_records(records), size


def _clamped_text(value: bytes, epoch: int) -> bytes:
    try:
        seconds = float(value)
    except ValueError as error:
        raise ExportError("a layer's tar has a damaged time") from error
    return b"%d" % epoch if seconds > epoch else value


def _number(field: bytes) -> int:
    """An octal or base-256 field."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    text = field.strip(b" \0")
    try:
        return int(text, 8) if text else 0
    except ValueError as error:
        raise ExportError("a layer's tar has a damaged number") from error


def _with_field(block: bytes, offset: int, value: bytes) -> bytes:
    return block[:offset] + value + block[offset + len(value) :]


def _with_checksum(block: bytes) -> bytes:
    total = sum(block[:148]) + 256 + sum(block[156:])
    return _with_field(block, 148, b"%06o\0 " % total)
