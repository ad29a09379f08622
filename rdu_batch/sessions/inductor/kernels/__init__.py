"""Decode kernels of our own: matrix times one row, and attention of one row, at memory speed.

Holds: the C++ source (``row_kernels.cpp``), its compilation to a library that travels in the
artifact (``build.py``), the operators that graphs are traced with, each with its meaning in plain
torch (``ops.py``), and the rewrite that joins products of one row (``siblings.py``).
Promises: a compiled graph calls the library by a name that holds the digest of source and flags, so
that it never meets another version. Does not: know models; see ``patches.py``.

Why not Inductor's own code: measured in ``tests/benchmarks/LOG.md``.
"""
