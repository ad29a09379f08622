"""What the verbs about submissions share: the cluster's address, and waiting."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rdu_batch.cli.parameter_types import FiniteRange
from rdu_batch.errors import WaitEnded
from rdu_batch.report.ci_text import json_line, without_commands

if TYPE_CHECKING:
    from rdu_batch.cli.ci_options import CiOutput
    from rdu_batch.runner.ray_jobs import RayJobs
    from rdu_batch.runner.submitting import Jobs

Command = TypeVar("Command", bound=Callable[..., Any])


def jobs_address(command: Command) -> Command:
    """Add ``--address`` of a cluster's Jobs API to a command."""
    return click.option(
        "--address",
        metavar="ADDRESS",
        help="The cluster's dashboard, such as http://HOST:8265, or auto. "
        "[default: RAY_API_SERVER_ADDRESS, then RAY_ADDRESS, then one of this machine]",
    )(command)


def wait_options(command: Command) -> Command:
    """Add ``--timeout`` and ``--patience`` to a command."""
    for option in (
        click.option(
            "--patience",
            type=FiniteRange(min=0),
            metavar="SECONDS",
            help="How long to try again where the cluster does not answer, before that is exit 13. "
            "[default: 0 at first, 120 once it has answered]",
        ),
        click.option(
            "--timeout",
            type=FiniteRange(min=0),
            metavar="SECONDS",
            help="Wait no longer (exit 11); the job goes on.",
        ),
    ):
        command = option(command)
    return command


def reach_jobs(address: str | None, patience_s: float | None, ci_output: CiOutput) -> RayJobs:
    """The jobs of the cluster, which may take ``patience_s`` to answer.

    Raises:
        ClusterError: it does not, or refuses.
    """
    from rdu_batch.runner.ray_jobs import RayJobs
    from rdu_batch.runner.reaching import reach

    return reach(
        lambda: RayJobs(address),
        patience_s or 0.0,
        tell=lambda text: ci_output.say(f"rdu-batch: {text}"),
    )


def wait_and_tell(
    jobs: Jobs,
    submission_id: str,
    output_url: str | None,
    *,
    timeout_s: float | None,
    patience_s: float | None,
    ci_output: CiOutput,
    may_submit_again: bool = False,
    shows_log: bool = True,
) -> int | None:
    """Wait for a submission and say how it ended, with its driver's log meanwhile.

    Returns:
        Its exit code; None if its driver was killed and ``may_submit_again``.

    Raises:
        WaitEnded: the time is over, or Ctrl-C; the job goes on.
        RduBatchError: see ``submitting.wait_for``.
    """
    from rdu_batch.runner.submitting import OUTPUT, PATIENCE_S, told, wait_for

    try:
        ending = wait_for(
            jobs,
            submission_id,
            output_url,
            timeout_s=timeout_s,
            patience_s=PATIENCE_S if patience_s is None else patience_s,
            tell=lambda text: ci_output.say(f"rdu-batch: {text}"),
            tell_log=lambda text: _pass_on(ci_output, text) if shows_log else None,
        )
    except KeyboardInterrupt:
        raise WaitEnded(
            f"the wait was interrupted; {submission_id} goes on. Wait again with `rdu-batch wait "
            f"{submission_id}`, or stop it with `rdu-batch stop {submission_id}`"
        ) from None
    if ending.is_worth_another and may_submit_again:
        ci_output.say(f"rdu-batch: {submission_id}: {ending.message}; submitting again")
        return None
    if output_url is None:
        state = jobs.state(submission_id)
        output_url = state.metadata.get(OUTPUT) if state else None
    document = ci_output.judged_json(told(submission_id, output_url, ending))
    line = f"{submission_id}: {document['state']}, exit {document['exit']}"
    message = f": {ending.message}" if ending.message else ""
    ci_output.say(without_commands(f"rdu-batch: {line}{message}"))
    ci_output.tell(document, submission_id)
    click.echo(json_line(document))
    code: int = document["exit"]
    return code


def _pass_on(ci_output: CiOutput, log: str) -> None:
    """A piece of a driver's log, in which no line gives a runner a command."""
    ci_output.say(without_commands(log), nl=False)
