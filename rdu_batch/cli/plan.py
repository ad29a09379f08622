"""``rdu-batch plan``: what a job would do, without doing it.

Promises: writes nothing, starts nothing; the last line of stdout is one JSON object, all else goes
to stderr. An output that has its plan already is described by that plan, because its pins count.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from rdu_batch.cli.job_file import job_file_options, read_job_file
from rdu_batch.errors import OutputMismatch

if TYPE_CHECKING:
    from rdu_batch.job.plan import Plan


@click.command("plan")
@job_file_options
def plan(job_file: str, overrides: tuple[str, ...], date: str | None, limit: int | None) -> int:
    """Show what a run of JOB_FILE would do: files, rows, shards. Writes nothing.

    Lists and indexes the inputs; an output that has its plan already is described by that plan.
    The last line of standard output is one JSON object.
    """
    from rdu_batch.dataset.planning import OutputState, load_plan, make_plan, state_of_output
    from rdu_batch.job.plan import diff_decides
    from rdu_batch.runner.identity import identify_job
    from rdu_batch.storage.store import open_store

    spec = read_job_file(job_file, overrides, date, limit)
    identity = identify_job(spec)
    decides = identity.decides
    output = open_store(spec.output.url)
    existing = load_plan(output)
    state = state_of_output(output, existing, decides)
    is_ours = existing is not None and state is not OutputState.ANOTHER_JOB
    shown = existing if is_ours and existing else make_plan(spec, identity.artifact_digest).plan
    differences = diff_decides(existing.decides, decides) if existing and not is_ours else []
    exit_code = OutputMismatch.exit_code if differences else 0
    for line in _table(shown, output.url, state, differences):
        click.echo(line, err=True)
    summary = _summary(shown, output.url, state) | {
        "name": spec.name,
        "differences": differences,
        "exit": exit_code,
    }
    click.echo(json.dumps(summary, ensure_ascii=False))
    return exit_code


def _summary(plan: Plan, output_url: str, state: str) -> dict[str, Any]:
    return {
        "name": plan.name,
        "files": plan.num_files,
        "rows": plan.num_rows,
        "shards": plan.num_shards,
        "bytes": plan.num_bytes,
        "longest_rows": [
            {"path": row.path, "line": row.line, "bytes": row.num_bytes}
            for row in plan.longest_rows
        ],
        "job_digest": plan.job_digest,
        "output": output_url,
        "output_state": str(state),
    }


def _table(plan: Plan, output_url: str, state: str, differences: list[str]) -> list[str]:
    facts = [
        ("files", f"{plan.num_files:,}"),
        ("rows", f"{plan.num_rows:,}"),
        ("shards", f"{plan.num_shards:,} of at most {plan.rows_per_shard:,} rows"),
        ("bytes", f"{plan.num_bytes:,}"),
        ("job", plan.job_digest),
        ("output", f"{output_url} ({state})"),
    ]
    lines = [f"{name:<10}{value}" for name, value in facts]
    if plan.longest_rows:
        lines.append("longest rows")
        lines += [f"{row.num_bytes:>14,} bytes  {row.path}:{row.line}" for row in plan.longest_rows]
    if differences:
        lines.append("the output holds another job; what differs (there -> here)")
        lines += [f"  {line}" for line in differences]
        lines.append("choose another output.url, or delete that folder to start anew")
    return lines
