"""Bytes to rows: listing inputs, pinning and indexing them, and reading rows back by ordinal.

Holds the listing of input URLs, the decoding of formats, the count of a range's lines, the index of
a file, the making and saving of a plan, the reader that a worker uses, and ``generative.py``:
prompts of the tutorial's ``run``, by its rules or ours.
Promises: bounded memory whatever the size of a job's input (the reader holds one line at most
besides a few windows); the same bytes give the same index; rows that differ from the plan's pins
are refused.
Does not: parse a job's rows, import fsspec, Ray or torch, or write anything but a plan, its index
and pieces of large compressed inputs. ``README.md`` has the formats, and what dirt ends as.
"""
