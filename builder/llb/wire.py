"""Definitions in BuildKit's protobuf form, written and read: what ``.llb`` files and other builders exchange.

protobuf is imported on first use. The form is described in ``docs/formats/llb.md``.
"""

from __future__ import annotations

from builder.llb.wire_decode import Loaded, SourceText, decode
from builder.llb.wire_encode import encode, wire_digests

__all__ = ["Loaded", "SourceText", "decode", "encode", "wire_digests"]
