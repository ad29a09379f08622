"""Numbers in words, the same everywhere."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """``1 file``, ``2,000 files``: for nouns whose plural is a mere s."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def clock(seconds: float) -> str:
    """Seconds as ``m:ss`` or ``h:mm:ss``."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
