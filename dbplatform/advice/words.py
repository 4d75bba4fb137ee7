"""Sizes and pages of the manual, in words."""

from __future__ import annotations

_MANUAL = "https://www.postgresql.org/docs/current/"
CONCURRENTLY = "SHARE UPDATE EXCLUSIVE on the table: reads and writes go on; it waits for transactions that are open"


def manual(page: str) -> str:
    """A page of PostgreSQL's manual."""
    return _MANUAL + page


def size_words(size: float) -> str:
    """Bytes as people read them."""
    for unit, factor in (("GB", 1 << 30), ("MB", 1 << 20)):
        if size >= factor:
            return f"{size / factor:,.1f} {unit}"
    return f"{size / 1024:,.0f} kB"


def days_words(seconds: float) -> str:
    """A time as people read it."""
    if seconds >= 2 * 86_400:
        return f"{seconds / 86_400:,.0f} days"
    if seconds >= 7_200:
        return f"{seconds / 3_600:,.0f} hours"
    return f"{seconds / 60:,.0f} minutes" if seconds >= 120 else f"{seconds:,.0f} seconds"
