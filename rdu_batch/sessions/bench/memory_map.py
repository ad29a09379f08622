"""How much memory this process has to itself, and how much of a file it shares. Linux only.

Promises: counts pages as the kernel does (``/proc/self``). Pure but for reading these files.
"""

from __future__ import annotations

from pathlib import Path

_KIB = 1024


def private_bytes() -> int:
    """Bytes of memory that no other process has: what ends with this process."""
    return private_of(Path("/proc/self/smaps_rollup").read_text())


def shared_bytes_of_file(name: str) -> int:
    """Bytes of the files of this name that lie in memory, clean, and belong to others as well."""
    return shared_of_file(Path("/proc/self/smaps").read_text(), name)


def private_of(smaps_rollup: str) -> int:
    """Sum of private pages, clean and dirty, in the text of a ``smaps_rollup``."""
    return _sum(smaps_rollup.splitlines(), ("Private_Clean:", "Private_Dirty:"))


def shared_of_file(smaps: str, name: str) -> int:
    """Sum of shared clean pages of the files of this name, in the text of a ``smaps``."""
    total, inside = 0, False
    for line in smaps.splitlines():
        first = line.split(maxsplit=1)[0]
        if "-" in first and not first.endswith(":"):
            inside = line.endswith("/" + name)
        elif inside:
            total += _sum([line], ("Shared_Clean:",))
    return total


def _sum(lines: list[str], fields: tuple[str, ...]) -> int:
    found = (line.split() for line in lines if line.startswith(fields))
    return sum(int(kib) for _, kib, _ in found) * _KIB
