"""Listing: the first of many names, as a message tells them."""

from __future__ import annotations

from collections.abc import Iterable


def some(names: Iterable[str], most: int = 8) -> str:
    """At most ``most`` names, separated by commas; ``...`` stands for the others."""
    listed = list(names)
    return ", ".join(listed[:most]) + (", ..." if len(listed) > most else "")
