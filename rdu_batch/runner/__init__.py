"""Leases to commits: who runs which rows, and when a row's outcome is final.

``scheduler.py`` decides and does nothing; ``driver.py`` does and decides nothing. Between them
and the rows stand the executors (``inline_executor.py``, ``ray_executor.py``), the session process
and the lease run inside it, and the three steps that make rows durable: segments, sealing,
publishing.

Promises: each row ends in exactly one outcome; the same plan gives the same published bytes for
any number of workers and any interruption. Does not: know torch, or how a prompt becomes tokens.
"""
