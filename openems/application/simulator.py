"""``twistd -n openems-simulator``: the simulated fleet as a Twisted service."""

from __future__ import annotations
