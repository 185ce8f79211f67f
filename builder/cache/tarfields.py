"""The fields of tar headers: numbers, times, PAX records, checksums, sparse maps; each checked strictly."""

from __future__ import annotations

from builder.errors import PybuildError

Sparse = tuple[tuple[int, int], ...]
"""Where the data of a sparse file lies: (offset, length), ascending."""

MAX_SIZE = 1 << 62
MAX_RECORDS = 4096


class BadArchive(PybuildError):
    """An archive that is damaged, hostile, or larger than allowed."""

    code = "bad-archive"


def checked_map(pairs: list[int], stored: int, real: int, name: str) -> Sparse:
    if len(pairs) % 2 or not 0 <= real <= MAX_SIZE:
        raise BadArchive(f"{name!r}: the map of a sparse file is damaged")
    sparse = tuple(zip(pairs[::2], pairs[1::2], strict=True))
    position = total = 0
    for offset, length in sparse:
        if offset < position or length < 0 or offset + length > real:
            raise BadArchive(f"{name!r}: the map of a sparse file is damaged")
        position = offset + length
        total += length
    if total != stored:
        raise BadArchive(f"{name!r}: the map of a sparse file does not fit its data")
    return sparse


def check_header(block: bytes) -> None:
    """Compare a header with its checksum, which some writers computed over signed bytes."""
    wanted = read_number(block[148:156])
    total = sum(block) - sum(block[148:156]) + 8 * 32
    if total == wanted:
        return
    signed = total - 256 * sum(1 for i, byte in enumerate(block) if byte >= 0x80 and not 148 <= i < 156)
    if signed != wanted:
        raise BadArchive("a header's checksum is wrong: this is not a tar archive, or it is damaged")


def read_number(data: bytes) -> int:
    """A numeric field: octal text, or big-endian binary when its first bit is set."""
    if data[0] == 0xFF:
        return int.from_bytes(data, "big", signed=True)
    if data[0] & 0x80:
        return int.from_bytes(bytes((data[0] & 0x7F,)) + data[1:], "big")
    text = data.strip(b" \0").split(b"\0", 1)[0]
    if not text:
        return 0
    try:
        if not text.isdigit():
            raise ValueError
        return int(text, 8)
    except ValueError:
        raise BadArchive(
            f"a header has {text!r} for a number: this is not a tar archive, or it is damaged"
        ) from None


def read_digits(text: bytes) -> int:
    if not text.isdigit() or len(text) > 20:
        raise BadArchive(f"not a number in an extended header: {text[:40]!r}")
    return int(text)


def decimal_of(records: dict[str, bytes], key: str, default: int) -> int:
    text = records.get(key)
    return read_digits(text) if text else default


def time_of(records: dict[str, bytes], default: int) -> int:
    """Nanoseconds from ``mtime``'s decimal seconds, rounded down."""
    text = records.get("mtime")
    if not text:
        return default * 1_000_000_000
    sign = -1 if text.startswith(b"-") else 1
    whole, _, fraction = text.removeprefix(b"-").partition(b".")
    if not fraction.isdigit() and fraction:
        raise BadArchive(f"not a time in an extended header: {text[:40]!r}")
    nanoseconds = int((fraction[:9] or b"0").ljust(9, b"0"))
    return sign * (read_digits(whole) * 1_000_000_000 + nanoseconds)


def to_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def read_records(body: bytes) -> tuple[dict[str, bytes], list[int]]:
    """PAX records, the last of a key counting, and the pairs of sparse format 0.0 in their order."""
    records: dict[str, bytes] = {}
    pairs: list[int] = []
    at = 0
    while at < len(body):
        space = body.find(b" ", at, at + 20)
        size = read_digits(body[at:space]) if space > 0 else 0
        end = at + size
        if size < 5 or end > len(body) or body[end - 1] != 10:
            raise BadArchive("an extended header is damaged")
        key, equals, value = body[space + 1 : end - 1].partition(b"=")
        if not equals or not key or b"\0" in key:
            raise BadArchive("an extended header is damaged")
        if key in (b"path", b"linkpath") and b"\0" in value:
            raise BadArchive("a name in an extended header holds a NUL")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            wanted = b"GNU.sparse.numbytes" if len(pairs) % 2 else b"GNU.sparse.offset"
            if key != wanted:
                raise BadArchive("the map of a sparse file is damaged")
            pairs.append(read_digits(value))
        else:
            records[to_text(key)] = value
        if len(records) > MAX_RECORDS:
            raise BadArchive("an extended header has too many records")
        at = end
    return records, pairs
