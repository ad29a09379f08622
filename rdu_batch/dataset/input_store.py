"""A store that fails while an input is read is an input error: exit 4, not the output's exit 6."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rdu_batch.errors import InputError, ObjectMissing, StoreError


@contextmanager
def reading_input(url: str) -> Iterator[None]:
    """Turn a store's failure inside the block into an InputError that names the input.

    ``ObjectMissing`` passes through: what a missing object means is for the caller to say.

    Raises:
        InputError: a store operation inside the block failed. Ends the job.
    """
    try:
        yield
    except ObjectMissing:
        raise
    except StoreError as error:
        raise InputError(f"the input {url} cannot be read: {error}") from error
