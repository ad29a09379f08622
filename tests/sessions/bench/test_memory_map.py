"""Private and shared memory, from texts as the kernel writes them and from this very process."""

from __future__ import annotations

import mmap

from rdu_batch.sessions.bench.memory_map import private_bytes, private_of, shared_of_file

ROLLUP = """55d0-7ffc ---p 00000000 00:00 0                          [rollup]
Rss:                9000 kB
Shared_Clean:       5000 kB
Shared_Dirty:        100 kB
Private_Clean:       900 kB
Private_Dirty:      3000 kB
"""
SMAPS = """7f00-7f10 r--s 00000000 fe:00 12        /store/model/weights.safetensors
Rss:                  80 kB
Shared_Clean:         64 kB
Private_Clean:        16 kB
VmFlags: rd mr
7f10-7f20 r-xp 00000000 fe:00 13        /store/model/kernels.so
Shared_Clean:        512 kB
7f20-7f30 r--p 00000000 fe:00 12        /store/model/weights.safetensors
Shared_Clean:          8 kB
7f30-7f40 rw-p 00000000 00:00 0
Shared_Clean:          1 kB
"""


def test_private_memory_is_what_no_other_process_has() -> None:
    """Clean and dirty."""
    assert private_of(ROLLUP) == 3900 * 1024


def test_shared_pages_of_one_file_are_summed_over_its_mappings() -> None:
    """And nobody else's."""
    assert shared_of_file(SMAPS, "weights.safetensors") == 72 * 1024


def test_memory_that_is_written_to_is_private() -> None:
    """The kernel says so of this process: 64 MiB more."""
    before = private_bytes()
    with mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.write(b"\1" * len(memory))
        grown = private_bytes() - before
    assert 60 << 20 < grown < 140 << 20
