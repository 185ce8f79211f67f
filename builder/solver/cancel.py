"""A build's stop signal, under the name by which the solver knows it."""

from __future__ import annotations

from builder.cancelling import Cancel

__all__ = ["Cancel"]
