"""``rdu-batch plan``: what a job would do, without doing it.

Promises: writes nothing, starts nothing; the last line of stdout is one JSON object, all else goes
to stderr. An output that has its plan already is described by that plan, because its pins count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from rdu_batch.cli.job_file import job_file_options, read_job_file
from rdu_batch.errors import OutputMismatch
from rdu_batch.report.ci_text import json_line
from rdu_batch.report.wording import counted

if TYPE_CHECKING:
    from rdu_batch.dataset.planning import PlannedJob, RecutCost
    from rdu_batch.job.plan import Plan
    from rdu_batch.storage.store import Store


@click.command("plan")
@job_file_options
@click.option(
    "--sample", type=click.IntRange(min=1), default=5, show_default=True, metavar="N",
    help="--render: rows to show, spread over all inputs, the same ones each time.",
)  # fmt: skip
@click.option(
    "--render", is_flag=True, help="Show sampled prompts as they will be, and their tokens."
)
@click.option(
    "--predict-from", type=click.IntRange(min=0), default=200, show_default=True, metavar="N",
    help="Rows to read and count for the prediction; 0 makes none.",
)  # fmt: skip
def plan(
    job_file: str,
    overrides: tuple[str, ...],
    date: str | None,
    limit: int | None,
    sample: int,
    render: bool,
    predict_from: int,
) -> int:
    """Show what a run of JOB_FILE would do: files, rows, shards, tokens, time. Writes nothing.

    Lists and indexes the inputs; an output that has its plan already is described by that plan.
    The last line of standard output is one JSON object.
    """
    from rdu_batch.dataset.local_counting import local_counting
    from rdu_batch.dataset.planning import (
        OutputState,
        RecutCost,
        load_plan,
        make_plan,
        state_of_output,
    )
    from rdu_batch.job.plan import diff_decides
    from rdu_batch.runner.identity import identify_job
    from rdu_batch.runner.outlook import look_ahead, look_back_since
    from rdu_batch.storage.options_in_force import use_storage_options
    from rdu_batch.storage.store import open_store

    spec = read_job_file(job_file, overrides, date, limit)
    identity = identify_job(spec)
    decides = identity.decides
    output = open_store(spec.output.url)
    existing = load_plan(output)
    state = state_of_output(output, existing, decides)
    is_ours = existing is not None and state is not OutputState.ANOTHER_JOB
    source: Store | PlannedJob
    recut = RecutCost()
    if is_ours and existing is not None:
        shown, source = existing, output
    else:
        counting = local_counting(use_storage_options, spec)
        source = make_plan(spec, identity.artifact_digest, count_ranges=counting)
        shown, recut = source.plan, source.recut
    differences = diff_decides(existing.decides, decides) if existing and not is_ours else []
    exit_code = OutputMismatch.exit_code if differences else 0
    unchanged = None
    if state in (OutputState.NEW, OutputState.IN_PROGRESS):
        unchanged = look_back_since(spec, output, decides, source, shown)
    outlook = look_ahead(
        spec,
        source,
        shown,
        reused=unchanged.ranges if unchanged else (),
        num_shown=sample if render else 0,
        # Of a complete job there is nothing to predict, and its inputs may be gone.
        num_sampled=0 if state is OutputState.COMPLETE else predict_from,
    )
    table = _table(shown, output.url, state, differences)
    reused = [f"{'reused':<10}{unchanged.to_text()}"] if unchanged else []
    for line in [*table, *reused, *_recut_lines(recut), *outlook.to_lines()]:
        click.echo(line, err=True)
    summary = _summary(shown, output.url, state) | {
        "name": spec.name,
        "differences": differences,
        "recut": {
            "files": recut.num_files,
            "stored_bytes": recut.stored_bytes,
            "decoded_bytes": recut.decoded_bytes,
        },
        **({"reused": unchanged.to_json()} if unchanged else {}),
        **outlook.to_json(),
        "exit": exit_code,
    }
    click.echo(json_line(summary))
    return exit_code


def _recut_lines(recut: RecutCost) -> list[str]:
    if not recut.num_files:
        return []
    files = counted(recut.num_files, "large compressed or .json file")
    cost = (
        f"{files} ({recut.stored_bytes:,} bytes, {recut.decoded_bytes:,} unpacked): before its "
        "first row, a run unpacks and copies this once to _run/recut/ in the output, packed with "
        "gzip in pieces that can be read alone"
    )
    return [f"{'recut':<10}{cost}"]


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
