"""``rdu-batch run --inference``: the tutorial's own command, which prints its predictions.

Promises: without ``--output``, standard output holds what the tutorial prints and nothing else:
prompts with their continuations, a line of hyphens between; all else, errors too, goes to standard
error. With ``--output`` the same flags are a job like any other, and end as one. Does not: train;
make up weights.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import click
from click.core import ParameterSource

from rdu_batch.cli.executor_options import executor_options
from rdu_batch.cli.tutorial_flags import (
    TutorialRun,
    batch_size_option,
    check_batch_size,
    spelled,
)
from rdu_batch.errors import Interrupted, RduBatchError, UsageError

if TYPE_CHECKING:
    from rdu_batch.job.spec import JobSpec
    from rdu_batch.sessions.artifact import LocalArtifact

#: Between two predictions, as the tutorial prints them.
SEPARATOR: Final = f"\n{'-' * 20}\n"
#: Kinds of which each worker has an RDU for itself.
_ON_RDU: Final = ("samba", "rdu_engine")
#: Options that only a job has.
_OF_JOBS: Final = ("limit", "overrides", "executor", "address", "bind_to")


def is_tutorial(arguments: list[str]) -> bool:
    """Whether the words behind ``run`` are the tutorial's command, not a job file's."""
    return any(
        word in ("--inference", "--pef", "-p") or word.startswith(("--pef=", "-p="))
        for word in arguments
    )


def has_output(arguments: list[str]) -> bool:
    """Whether they ask for a job, whose standard output ends with one JSON line."""
    return any(word == "--output" or word.startswith("--output=") for word in arguments)


@click.command("run", cls=TutorialRun, short_help="the tutorial's command: print predictions")
@click.option("--inference", is_flag=True, help="Required: this program does not train.")
@click.option(
    "-p", "--pef", metavar="PATH", help="The PEF, or the folder of an artifact of any kind."
)
@spelled(
    "data_dir", metavar="PATH",
    help='Prompts: a .jsonl or .json file, a folder of .jsonl files, or JSON itself; each object '
    'has a text under "prompt".',
)  # fmt: skip
@spelled(
    "max_tokens_to_generate", type=click.IntRange(min=1), default=20, show_default=True,
    help="Most new tokens of one prompt.",
)  # fmt: skip
@spelled(
    "examples_to_generate", type=click.IntRange(min=0), default=20, show_default=True,
    help="Only the first prompts, this many. With --output: all, unless this or --limit is given.",
)  # fmt: skip
@spelled(
    "checkpoint_name", default="", metavar="FILE",
    help="Weights by name for the artifact: .safetensors, or saved by torch. Without it, the "
    "artifact must have weights.",
)  # fmt: skip
@spelled("max_seq_length", type=int, help="Must be the artifact's, if given.")
@spelled("config_name", help="Must be the artifact's config, if given.")
@spelled("model_name_or_path", help="Must have the artifact's tokenizer, if given.")
@spelled("cache_dir", help="Taken, and not needed: nothing is downloaded.")
@batch_size_option
@spelled("log_level", help="Taken, and not needed: SambaFlow is told `error` when it runs.")
@click.option("--kind", help="Kind of session. [default: the artifact's]")
@click.option(
    "--threads", type=click.IntRange(min=1), default=1, show_default=True,
    help="Threads inside the session.",
)  # fmt: skip
@spelled(
    "strict_tutorial", is_flag=True,
    help="Read --data_dir in the tutorial's order, with its refusals and texts of errors.",
)  # fmt: skip
@click.option("--output", metavar="URL", help="Run a job that writes its predictions there.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="--output: first N rows.")
@click.option(
    "--set", "overrides", multiple=True, metavar="a.b=VALUE",
    help="--output: override one leaf of the job. May be repeated.",
)  # fmt: skip
@spelled(
    "bind_to", metavar="URL",
    help="--output: keep the artifact with the checkpoint's weights there, where all nodes can "
    "read it. [default: this machine's cache]",
)  # fmt: skip
@executor_options
@click.pass_context
def tutorial_run(context: click.Context, /, **options: Any) -> int:
    """Continue prompts and print them, as SambaNova's tutorial does.

    `rdu-batch run JOB_FILE` runs a job; see `rdu-batch run --help`.
    """
    given = {
        name
        for name in options
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    if options["output"]:
        _check(options)
        return _run_job(options, given)
    stdout = _take_over_stdout()
    try:
        _check(options)
        only_jobs = sorted(given.intersection(_OF_JOBS))
        if only_jobs:
            flags = ", ".join("--set" if name == "overrides" else f"--{name}" for name in only_jobs)
            raise UsageError(f"{flags}: only with --output URL, which runs a job")
        _print_predictions(options, stdout)
    except KeyboardInterrupt:
        return _fail(Interrupted("stopped by Ctrl-C; nothing is kept, --output runs a job"))
    except BrokenPipeError:
        return _fail(RduBatchError("nobody reads standard output any more"))
    except RduBatchError as error:
        return _fail(error)
    return 0


def _check(options: dict[str, Any]) -> None:
    if not options["inference"]:
        raise UsageError("without --inference the tutorial trains, which this program does not do")
    if options["kind"]:
        from rdu_batch.sessions.registry import problem_of_kind

        problem = problem_of_kind(options["kind"])
        if problem is not None:
            raise UsageError(f"--kind: {problem}")
    for name in ("pef", "data_dir"):
        if not options[name]:
            raise UsageError(f"--{name} is missing; `rdu-batch run --inference --help` explains it")
    check_batch_size(options["batch_size"])


def _print_predictions(options: dict[str, Any], stdout: BinaryIO) -> None:
    """Print as the tutorial does: ``print(*predictions, sep=SEPARATOR)``, one by one."""
    from rdu_batch.dataset.generative import read_examples, read_like_tutorial
    from rdu_batch.sessions.continuing import continued

    count = options["examples_to_generate"]
    if options["strict_tutorial"]:
        examples = read_like_tutorial(options["data_dir"])[:count]
    else:
        examples = read_examples(options["data_dir"], count)
    if not examples:
        why = "--examples_to_generate is 0" if count == 0 else f"--data_dir {options['data_dir']}"
        _say(f"no prompts: {why}{'' if count == 0 else ' holds none'}; nothing is generated")
    local = _artifact(options)
    predictions = continued(
        local,
        [(example.place, example.prompt) for example in examples],
        kind=options["kind"] or local.artifact.kind,
        max_new_tokens=options["max_tokens_to_generate"],
        threads=options["threads"],
        on_progress=_say,
    )
    for index, prediction in enumerate(predictions):
        stdout.write(f"{SEPARATOR if index else ''}{prediction}".encode())
        stdout.flush()
    stdout.write(b"\n")
    stdout.flush()


def _artifact(options: dict[str, Any]) -> LocalArtifact:
    """The artifact on this node, with weights, checked against what the command says of it."""
    from rdu_batch.sessions.artifact_store import fetch_artifact, folder_of_pef, read_artifact
    from rdu_batch.sessions.registry import check_can_load
    from rdu_batch.sessions.same_model import check_same_model
    from rdu_batch.sessions.weight_binding import bind_weights

    url, checkpoint = folder_of_pef(options["pef"]), options["checkpoint_name"]
    described = read_artifact(url, needs_weights=not checkpoint)
    length = options["max_seq_length"]
    if length not in (None, described.max_seq_length):
        raise UsageError(
            f"--max_seq_length {length}: {url} was compiled for {described.max_seq_length}; leave "
            "it out, or compile the model for this length"
        )
    if not options["output"]:
        # A job's sessions are opened on other machines.
        check_can_load(options["kind"] or described.kind)
    local = bind_weights(url, checkpoint, _say) if checkpoint else fetch_artifact(url)
    for line in check_same_model(
        local,
        config_name=options["config_name"],
        tokenizer_name=options["model_name_or_path"],
    ):
        _say(line)
    return local


def _run_job(options: dict[str, Any], given: set[str]) -> int:
    from rdu_batch.cli.run import run_spec

    if options["strict_tutorial"]:
        raise UsageError("--strict_tutorial: a job reads its rows in sorted order; leave it out")
    if "examples_to_generate" in given and not options["examples_to_generate"]:
        raise UsageError(
            "--examples_to_generate 0: a job has at least one row; use --limit N, or leave it out"
        )
    limit = options["limit"]
    if limit is None and "examples_to_generate" in given:
        limit = options["examples_to_generate"]
    if limit is None:
        _say("a job: all rows are run; --limit N runs the first N")
    spec = _spec(options, limit)
    return run_spec(spec, spec.name, executor=options["executor"], address=options["address"])


def _spec(options: dict[str, Any], limit: int | None) -> JobSpec:
    """The job that the flags mean."""
    from rdu_batch.dataset.generative import is_inline_json
    from rdu_batch.job.loading import load_spec
    from rdu_batch.sessions.weight_binding import keep_bound

    data_dir = options["data_dir"]
    if is_inline_json(data_dir) or data_dir.endswith(".json"):
        raise UsageError(
            f"--data_dir {data_dir[:80]}: a job reads .jsonl files, one object a line; write it as "
            "one, or leave --output out"
        )
    local = _artifact(options)
    url = local.artifact.url
    if options["bind_to"]:
        url = keep_bound(local, options["bind_to"])
    kind = options["kind"] or local.artifact.kind
    document = {
        "version": 1,
        "name": "tutorial",
        "input": {"urls": [data_dir]},
        "prompt": {"field": "prompt"},
        "session": {"kind": kind, "artifact": url, "threads": options["threads"]},
        "generation": {"max_new_tokens": options["max_tokens_to_generate"]},
        "output": {"url": options["output"]},
        "workers": {"resources": {"RDU": 1}} if kind in _ON_RDU else {},
    }
    text = json.dumps(document)
    return load_spec(text, source="run --inference", overrides=options["overrides"], limit=limit)


def _take_over_stdout() -> BinaryIO:
    """Standard output for predictions alone.

    Until this process ends, whatever else is printed goes to standard error: libraries print, and
    native code, SambaFlow's runtime among it, does so past Python.
    """
    sys.stdout.flush()
    own = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return os.fdopen(own, "wb")


def _say(line: str) -> None:
    click.echo(line, err=True)


def _fail(error: RduBatchError) -> int:
    """Say it for people alone: programs have the exit code."""
    _say(f"rdu-batch: error: {error}")
    for note in getattr(error, "__notes__", ()):
        _say(f"rdu-batch: note: {note}")
    return error.exit_code
