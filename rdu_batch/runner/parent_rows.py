"""Rows of a finished output, read where they are wanted, and told under a new place."""

from __future__ import annotations

import itertools
from contextlib import closing
from typing import TYPE_CHECKING, Any

from rdu_batch.job.records import row_key

if TYPE_CHECKING:
    from collections.abc import Container, Generator, Iterator

    from rdu_batch.runner.outcomes import Outcome
    from rdu_batch.runner.parents import FinishedOutput


class ParentRows:
    """Outcomes of a finished output by row; ranges that follow each other are read in one pass.

    Holds local copies of one shard's files until ``close``.
    """

    def __init__(self, finished: FinishedOutput) -> None:
        """Reads nothing yet."""
        self._finished = finished
        self._entries = finished.entries()
        self._outcomes: Generator[Outcome] | None = None
        #: Of the next outcome of ``_outcomes``, and where its shard ends.
        self._next_row = self._end_row = 0

    def read(self, first_row: int, num_rows: int) -> Iterator[Outcome]:
        """The outcomes of these rows, in order.

        Raises:
            VerifyFailed: the output is damaged. Ends the job.
            OutputMismatch: its run folder is not whole. Ends the job.
        """
        for row in range(first_row, first_row + num_rows):
            yield self._at(row)

    def predictions(
        self, entry: dict[str, Any], numbers: Container[int]
    ) -> Iterator[tuple[int, Outcome]]:
        """Some predictions of a shard, each with its number among them. Raises as ``read`` does."""
        shard = self._finished.plan.shard(int(entry["shard"]))
        with closing(self._finished.outcomes(entry, shard)) as outcomes:
            predictions = (one for one in outcomes if one.is_prediction)
            for number, outcome in enumerate(predictions):
                if number in numbers:
                    yield number, outcome

    def close(self) -> None:
        """Remove what is on local disk."""
        if self._outcomes is not None:
            self._outcomes.close()
            self._outcomes = None

    def _at(self, row: int) -> Outcome:
        if self._outcomes is None or not self._next_row <= row < self._end_row:
            self.close()
            plan = self._finished.plan
            shard = plan.shard(row // plan.rows_per_shard)
            self._outcomes = self._finished.outcomes(self._entries[shard.index], shard)
            self._next_row, self._end_row = shard.first_row, shard.end_row
        outcome = next(itertools.islice(self._outcomes, row - self._next_row, None))
        self._next_row = row + 1
        return outcome


def moved_to(outcome: Outcome, file_index: int, line: int | None) -> Outcome:
    """The outcome of the same content at another place; ``line`` None keeps its line number."""
    content = outcome.line
    index_before, line_before = row_key(content)
    line = line_before if line is None else line
    if (index_before, line_before) == (file_index, line):
        return outcome
    _, _, rest = content.partition(b"]")
    return outcome._replace(line=b'{"row":[%d,%d]%s' % (file_index, line, rest))
