"""Bytes in folders: local paths and any fsspec URL behind one small class.

Holds the one import of fsspec, ranged reads, whole writes and create-once; the probe, which
measures what a store really guarantees, and the choice of the commit protocol that follows.
Promises: a reader sees an object whole or not at all; ``create_once`` never overwrites; a listing
is never served from a cache; every failure is a ``StoreError`` with the URL and what to do.
Does not: know rows, plans or leases, and does not keep credentials (the drivers find them, or the
job's options name environment variables). More in ``README.md`` beside this file.
"""
