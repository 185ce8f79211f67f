"""What builds use of this machine, under the name that the commands know it by."""

from __future__ import annotations

from builder.build.local import BridgeNetworks, LazyMachine

__all__ = ["BridgeNetworks", "LazyMachine"]
