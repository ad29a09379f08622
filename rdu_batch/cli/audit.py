"""``rdu-batch audit OUTPUT``: run random rows of a finished output again and compare them."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Any

import click

from rdu_batch.cli.parameter_types import FiniteRange, FolderUrl
from rdu_batch.report.ci_text import json_line

if TYPE_CHECKING:
    from rdu_batch.runner.audit import AuditReport
    from rdu_batch.runner.row_comparison import Difference

#: How much of a value is shown, and how much of it before the first character that differs.
SHOWN_CHARS = 100
SHOWN_BEFORE = 30


@click.command()
@click.argument("output", metavar="OUTPUT", type=FolderUrl())
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    metavar="K",
    help="How many rows to run again.",
)
@click.option(
    "--seed",
    type=int,
    metavar="N",
    help="Chooses the same rows again. [default: another each time]",
)
@click.option(
    "--artifact", metavar="URL", help="Folder of the artifact that the output was made with."
)
@click.option(
    "--row-timeout",
    type=FiniteRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Seconds that one row may take. [default: that of limits.row_timeout_s]",
)
def audit(
    output: str, sample: int, seed: int | None, artifact: str | None, row_timeout: float | None
) -> int:
    """Run K random rows of the finished output at URL OUTPUT again and compare every byte.

    Works in this machine's one session, without Ray, and writes nothing to the output. Needs its
    _run folder, its inputs, and a machine that computes the same bits as the one that ran the job:
    on another kind of machine nothing is compared (exit 8). Dead letters of session_killed and
    row_timeout are counted as not audited. Exit 0 if all are equal, 7 if a row differs, 10 if a
    row ends its session now.
    """
    from rdu_batch.report.progress import open_progress
    from rdu_batch.runner.audit import audit_output
    from rdu_batch.storage.store import open_store

    progress = open_progress()
    try:
        report = audit_output(
            open_store(output),
            sample=sample,
            seed=secrets.randbelow(2**32) if seed is None else seed,
            artifact=artifact,
            row_timeout_s=row_timeout,
            progress=progress,
        )
    finally:
        progress.close()
    for line in _text(report):
        click.echo(line, err=True)
    click.echo(json_line(report.to_json(), default=str))
    return report.exit


def _text(report: AuditReport) -> list[str]:
    lines = [
        f"rdu-batch: broken: row {list(row)} ended its session: {text.splitlines()[0]}"
        for row, text in report.broken.items()
    ]
    if report.differences:
        lines.append("rdu-batch: damaged: what is published is not what these rows come to:")
        lines += _table(report.differences)
    not_audited = "".join(
        f", {number:,} not audited ({reason} dead letters)"
        for reason, number in sorted(report.not_audited.items())
    )
    lines.append(
        f"{report.output}: {report.equal:,} of {report.sampled:,} rows equal{not_audited}; "
        f"seed {report.seed}"
    )
    return lines


def _table(differences: list[Difference]) -> list[str]:
    lines = []
    for one in differences:
        place = f"{one.file}:{one.line}" if one.line else one.file
        there, here = _around(_shown(one.published), _shown(one.now))
        lines.append(f"  row {list(one.row)}  {place}  {one.field}")
        lines += [f"    published  {there}", f"    now        {here}"]
    return lines


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _around(there: str, here: str) -> tuple[str, str]:
    """Both texts, cut to what is around the first character that differs."""
    pairs = zip(there, here, strict=False)
    same = next(
        (at for at, (one, other) in enumerate(pairs) if one != other), min(len(there), len(here))
    )
    start = max(0, same - SHOWN_BEFORE)
    end = start + SHOWN_CHARS
    before = "..." if start else ""
    cut = [f"{before}{text[start:end]}{'...' if len(text) > end else ''}" for text in (there, here)]
    return cut[0], cut[1]
