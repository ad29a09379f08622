"""What a run with ``input.since`` took over of an earlier output, in numbers and in words."""

from __future__ import annotations

from dataclasses import dataclass

from rdu_batch.report.wording import counted


@dataclass(frozen=True)
class Reused:
    """What was taken over of the parent, and what decided it."""

    since: str
    parent_manifest_sha256: str
    unchanged_files: int
    rows_of_unchanged_files: int
    rows_of_same_content: int
    #: False where the parent has no greedy prediction, so that no row was looked for by content.
    looked_for_content: bool

    @property
    def num_rows(self) -> int:
        """All rows that were taken over."""
        return self.rows_of_unchanged_files + self.rows_of_same_content

    def to_text(self, num_rows: int) -> str:
        """One line for people, with the reason of what was taken over and of what was not.

        ``num_rows`` is that of the whole job.
        """
        files = counted(self.unchanged_files, "unchanged file")
        told = f"{self.rows_of_unchanged_files:,} rows of {files}"
        if self.looked_for_content:
            told += f", {self.rows_of_same_content:,} rows with the content of an earlier one"
        else:
            told += " (no single rows: what was sampled holds for its place only)"
        return f"{told}; {num_rows - self.num_rows:,} are new since {self.since}"
