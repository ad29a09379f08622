"""``rdu-batch``: finds the verb, and turns every error into a paragraph and an exit code."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import threading
import traceback
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import click
from click.shell_completion import CompletionItem

from rdu_batch import __version__
from rdu_batch.errors import Interrupted, RduBatchError, SpecError, UsageError
from rdu_batch.report.ci_text import json_line, without_commands

#: Verb, module and command object; a module is imported only when its verb is used.
VERBS = {
    "compile": ("rdu_batch.cli.compile", "compile_command", "compile a model to an artifact"),
    "bench": ("rdu_batch.cli.bench", "bench_command", "measure an artifact on this machine"),
    "plan": ("rdu_batch.cli.plan", "plan", "show what a job would do; writes nothing"),
    "run": ("rdu_batch.cli.run", "run", "run a job; the same command resumes it"),
    "submit": ("rdu_batch.cli.submit", "submit", "run a job on a Ray cluster, by its Jobs API"),
    "wait": ("rdu_batch.cli.wait", "wait", "wait for a submission; end with its exit code"),
    "logs": ("rdu_batch.cli.logs", "logs", "print the log of a submission's driver"),
    "stop": ("rdu_batch.cli.stop", "stop", "stop a submission; what is finished is kept"),
    "status": (
        "rdu_batch.cli.status",
        "status",
        "say where an output, or a submission, stands",
    ),
    "report": ("rdu_batch.cli.report", "report", "write a page about an output for a browser"),
    "verify": ("rdu_batch.cli.verify", "verify", "check that an output holds what it promises"),
    "audit": ("rdu_batch.cli.audit", "audit", "run random rows again and compare them"),
    "retry-dead": (
        "rdu_batch.cli.retry_dead",
        "retry_dead",
        "run an output's dead letters again, into a new output",
    ),
    "gc": ("rdu_batch.cli.gc", "gc", "remove what killed workers left in an output"),
    "probe": ("rdu_batch.cli.probe", "probe", "measure what a store guarantees"),
    "chaos": (
        "rdu_batch.cli.chaos",
        "chaos",
        "hurt a small form of a job at every step and judge what comes of it",
    ),
    "doctor": ("rdu_batch.cli.doctor", "doctor", "say what this machine is and has"),
    "completions": (
        "rdu_batch.cli.completions",
        "completions",
        "print what a shell needs to complete verbs and options",
    ),
    "render": ("rdu_batch.cli.render", "render", "write a job as manifests for Kubernetes"),
    "schema": ("rdu_batch.cli.schema", "schema", "print the JSON Schema of job files"),
}


class Verbs(click.Group):
    """A group whose commands are imported when they are named, so that help is instant."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb; a pipe of its own that broke is no reason to end without a word.

        Click takes it for standard output's. That one never breaks here (``standard_streams.py``).
        """
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise RuntimeError("a pipe or connection broke") from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All verbs, in the order of a job's life."""
        del ctx
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one verb."""
        del ctx
        if cmd_name not in VERBS:
            return None
        module, name, _ = VERBS[cmd_name]
        command = getattr(importlib.import_module(module), name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}.{name} is not a command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb; a misspelt one is an error that names the nearest."""
        verb = args[0]
        near = difflib.get_close_matches(verb, VERBS, n=1)
        if verb not in VERBS and near:
            ctx.fail(f"there is no verb {verb!r}; did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Verbs and their meaning, without importing them; options are click's."""
        found = [
            CompletionItem(verb, help=text)
            for verb, (_, _, text) in VERBS.items()
            if verb.startswith(incomplete)
        ]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        del ctx
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, text) for verb, (_, _, text) in VERBS.items()])


@click.group(
    cls=Verbs,
    invoke_without_command=True,
    subcommand_metavar="COMMAND [ARGS]...",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="rdu-batch")
@click.pass_context
def rdu_batch(context: click.Context) -> None:
    """Push a large JSONL prompt corpus through one compiled model on Ray, exactly once."""
    if context.invoked_subcommand is None:
        # Whoever types the name alone wants to read; a program would name a verb.
        click.echo(context.get_help(), err=True)
        context.exit(UsageError.exit_code)


#: What these verbs came to is not on standard output alone: an output, an artifact, an exit code
#: that judges. Of the others nothing is left where standard output cannot be written.
RESULT_LIES_ELSEWHERE = frozenset(
    {
        *("compile", "run", "submit", "wait", "stop", "report", "verify", "audit", "retry-dead"),
        *("gc", "chaos"),
    }
)


#: Verbs that a signal stops as it stops a job, from their first moment on.
STOPPED_LIKE_A_JOB = frozenset({"run", "retry-dead", "audit"})


def main() -> None:
    """Run the command line and exit with the code that tells the truth."""
    from rdu_batch.cli.standard_streams import guard_standard_streams, is_broken, what_was_lost

    output = guard_standard_streams()
    arguments = sys.argv[1:]
    code = _run_stoppable(arguments) if _is_stopped_like_a_job(arguments) else run(arguments)
    lost = what_was_lost(output)
    if lost is not None:
        if is_broken(output) and not RESULT_LIES_ELSEWHERE.intersection(arguments[:1]):
            code = code or 1
        click.echo(f"rdu-batch: {lost} (exit {code})", err=True)
    if threading.active_count() > 1:
        _exit_beside_threads(code)
    sys.exit(code)


def _is_stopped_like_a_job(arguments: list[str]) -> bool:
    # The tutorial's command that prints predictions keeps nothing that a rerun could go on from.
    is_job = "--inference" not in arguments or any(one.startswith("--output") for one in arguments)
    return bool(STOPPED_LIKE_A_JOB.intersection(arguments[:1])) and is_job


def _run_stoppable(arguments: list[str]) -> int:
    """Run one command line that a signal ends by exit 12, even while it is still being imported."""
    from rdu_batch.runner.early_stops import end_listening, listen_early

    try:
        listen_early()
        return run(arguments)
    except Interrupted as error:
        return fail(error)
    finally:
        end_listening()


def _exit_beside_threads(code: int) -> None:
    """Exit at once where a thread still makes what nobody waits for, and would be torn apart."""
    from rdu_batch.runner.ray_connection import is_half_made

    if is_half_made():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run(arguments: list[str]) -> int:
    """Run one command line; the exit code. Errors of ours are printed without a traceback."""
    try:
        result = rdu_batch.main(arguments, prog_name="rdu-batch", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        click.echo(_json_of(error.exit_code, type(error).__name__, error.format_message()))
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return fail(Interrupted("stopped by Ctrl-C; run the same command again to go on"))
    except RduBatchError as error:
        return fail(error)
    except Exception as error:  # noqa: BLE001 - nobody is above; its traceback is printed
        # Not one of ours, so a bug: people get its traceback, programs still get their JSON line.
        traceback.print_exc()
        return fail(RduBatchError(f"internal error, please report it: {error!r}"))
    return result if isinstance(result, int) else 0


def fail(error: RduBatchError) -> int:
    """Print an error for people on standard error and as one JSON line on standard output."""
    heading = "the job file is wrong" if isinstance(error, SpecError) else None
    told = f"rdu-batch: error: {heading}:\n{error}" if heading else f"rdu-batch: error: {error}"
    # It may quote a row: in a runner of GitHub no line of it may give a command.
    click.echo(without_commands(told), err=True)
    click.echo(_json_of(error.exit_code, type(error).__name__, str(error), error.about))
    return error.exit_code


def _json_of(
    exit_code: int, kind: str, message: str, about: Mapping[str, str] = MappingProxyType({})
) -> str:
    document: dict[str, Any] = {**about, "exit": exit_code, "error": kind, "message": message}
    return json_line(document)
