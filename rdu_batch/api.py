"""What a program calls: ``rdu_batch.run``, ``compile``, ``open_session`` and ``load_job``.

For a notebook, a script or a task of a scheduler; ``import rdu_batch`` alone loads none of it.
Promises: the same job does the same here and on the command line, to the same bytes; nothing is
printed unless asked for; the process never ends; every error is a class of
``rdu_batch.errors``, whose ``exit_code`` is what the command line would end with. Signals are
listened to in the main thread alone, while a job runs, and are the caller's again afterwards.
Does not: hold logic of its own; the rooms do.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from rdu_batch.api_arguments import (
    check_job_arguments,
    day_text,
    text_of_file,
    text_of_mapping,
)
from rdu_batch.errors import UsageError
from rdu_batch.job.loading import load_spec
from rdu_batch.job.spec import JobSpec

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Sequence

    from rdu_batch.report.summary import Summary
    from rdu_batch.runner.executor_choice import ExecutorKind
    from rdu_batch.sessions.artifact import Artifact
    from rdu_batch.sessions.door import Session

#: A spec that was read, the path of a job file, or what a job file would say.
Job: TypeAlias = JobSpec | str | os.PathLike[str] | Mapping[str, Any]


def run(
    job: Job,
    *,
    overrides: Sequence[str] = (),
    date: str | dt.date | None = None,
    limit: int | None = None,
    executor: ExecutorKind = "ray",
    address: str | None = None,
    show_progress: bool = False,
) -> Summary:
    r"""Run a job to its end; the same call resumes it, or finds it complete.

    Example, of kind ``fake``, which needs no model, in this process without Ray::

        >>> import rdu_batch
        >>> with open("rows.jsonl", "w") as rows:
        ...     _ = rows.write('{"text": "a walk in the"}\n{"text": 17}\n')
        >>> job = {
        ...     "version": 1,
        ...     "name": "example",
        ...     "input": {"urls": ["rows.jsonl"]},
        ...     "prompt": {"field": "text"},
        ...     "session": {"kind": "fake"},
        ...     "output": {"url": "predictions"},
        ...     "limits": {"max_dead_rows": 1},
        ... }
        >>> summary = rdu_batch.run(job, executor="inline")
        >>> summary.state, summary.rows, summary.predictions, summary.dead
        ('complete', 2, 1, 1)
        >>> summary.dead_reasons
        {'wrong_type': 1}
        >>> rdu_batch.run(job, executor="inline").state
        'already complete'

    What a job came to is in ``summary.exit``: 0, or 5 where more rows are dead than
    ``limits.max_dead_rows`` allows, which is no exception, as the output is complete::

        >>> strict = {**job, "limits": {"max_dead_rows": 0}}
        >>> rdu_batch.run(strict, executor="inline").exit
        5

    Everything else that goes wrong is raised::

        >>> from rdu_batch.errors import RduBatchError
        >>> try:
        ...     rdu_batch.run({**job, "promt": {}}, executor="inline")
        ... except RduBatchError as error:
        ...     print(error.exit_code, error)
        3 the job:1: promt: found an unknown key; wanted one of ...; did you mean prompt?

    Args:
        job: path of a job file; or a mapping of what one would say, in which a path may be any
            ``os.PathLike``; or a ``JobSpec``.
        overrides: ``a.b=VALUE`` each, as ``--set`` takes them; not with a ``JobSpec``.
        date: fills ``{date}``: a day, or its text such as ``2026-11-22``; not with a ``JobSpec``.
        limit: only the first rows, this many; not with a ``JobSpec``.
        executor: ``ray``, or ``inline`` for one worker in this process, where nothing protects the
            process from what a session does.
        address: of the Ray cluster; None follows RAY_ADDRESS, then a running cluster, then starts
            one for this job. This process must not be connected to Ray already.
        show_progress: say on standard error what is going on, as the command line does.

    Returns:
        What the job came to. ``to_text()`` is for people, ``to_json()`` for programs.

    Raises:
        UsageError: an argument is of a kind that none can be.
        SpecError: the job has mistakes, all of them in ``problems``.
        Interrupted: a signal, in the main thread, or ``limits.deadline_s`` stopped it; what is
            finished is kept, and the same call goes on. Ctrl-C is this error, too.
        RduBatchError: any other, by its class; what is finished is kept.
    """
    from rdu_batch.report.progress import Silent, open_progress
    from rdu_batch.runner.executor_choice import check_kind
    from rdu_batch.runner.page_out import keep_page
    from rdu_batch.runner.run_job import run_job

    check_kind(executor)
    spec = load_job(job, overrides=overrides, date=date, limit=limit)
    with closing(open_progress() if show_progress else Silent()) as progress:
        summary = run_job(
            spec, executor=executor, address=address, progress=progress, ends_process=False
        )
        keep_page(summary, progress.phase)
    return summary


def compile(  # noqa: A001 - the verb's name
    model: str | os.PathLike[str] | None = None,
    *,
    out: str | os.PathLike[str],
    max_seq_length: int,
    kind: str = "inductor",
    dtype: str | None = None,
    weights: str = "plain",
    device: str = "cpu",
    instruction_set: str | None = None,
    config_name: str | None = None,
    checkpoint_name: str | None = None,
    tokenizer: str | None = None,
    cache_dir: str | None = None,
    on_progress: Callable[[str], None] = lambda _line: None,
) -> Artifact:
    """Compile a model to an artifact; the one that lies there, if it is the same.

    Needs torch, and for kind ``inductor`` a C++ compiler. Example::

        artifact = rdu_batch.compile("gpt2/", out="artifacts/gpt2", max_seq_length=512)
        artifact.url, artifact.digest, artifact.dtype

    What cannot be made is refused before anything is loaded::

        >>> import rdu_batch
        >>> rdu_batch.compile("gpt2/", out="artifact", max_seq_length=512, dtype="fp4")
        Traceback (most recent call last):
        rdu_batch.errors.UsageError: dtype 'fp4': wanted bf16 or fp32

    Args:
        model: a transformers folder, a hub id or a ``.gguf`` file; with ``checkpoint_name`` only
            where the tokenizer comes from.
        out: folder of the artifact, a path or any fsspec URL.
        max_seq_length: prompt and generated tokens together.
        kind: ``inductor``, ``samba``, or ``eager`` for an artifact without graphs.
        dtype: ``bf16`` or ``fp32``; None takes fp32 for kind ``samba``, bf16 for others.
        weights: ``plain``, or ``int8`` for one byte a weight.
        device: ``cpu``, or ``cuda`` for this machine's GPU.
        instruction_set: ``avx512`` or ``avx2``; None takes the best of this machine.
        config_name: config.json, folder or hub id; goes before the model's own.
        checkpoint_name: file of weights by name: ``.safetensors``, or saved by torch.
        tokenizer: folder, hub id or ``.gguf`` file; goes before the model's own.
        cache_dir: where downloads are kept.
        on_progress: called with one line a finished stage, such as ``print``.

    Returns:
        What ``artifact.json`` says; ``url`` is what ``open_session`` and a job file take.

    Raises:
        UsageError: settings that cannot be, or ``out`` holds other files.
        InputError: the checkpoint is missing, or does not fit its config.
        ArtifactError: ``out`` holds another artifact, or the model cannot be compiled here.
    """
    from rdu_batch.sessions.compile_settings import CompileSettings

    # Before the import that loads torch: what cannot be is refused at once.
    settings = CompileSettings(
        dtype=dtype or ("fp32" if kind == "samba" else "bf16"),
        max_seq_length=max_seq_length,
        kind=kind,
        instruction_set=instruction_set,
        weights=weights,
        device=device,
    )
    from rdu_batch.sessions.checkpoint import ModelSource
    from rdu_batch.sessions.compile import compile_artifact

    source = ModelSource(
        model_name_or_path=None if model is None else os.fspath(model),
        config_name=config_name,
        checkpoint_name=checkpoint_name,
        tokenizer=tokenizer,
        cache_dir=cache_dir,
    )
    return compile_artifact(source, os.fspath(out), settings, on_progress).artifact


def open_session(
    artifact: str | os.PathLike[str] | None = None, *, kind: str | None = None, threads: int = 1
) -> Session:
    """Open a session in this process: one loaded model, at batch size 1.

    Example, of kind ``fake``, whose tokens are bytes::

        >>> import contextlib
        >>> import rdu_batch
        >>> with contextlib.closing(rdu_batch.open_session(kind="fake")) as session:
        ...     prompt = list(b"a walk in the ")
        ...     step, said = session.prefill(prompt), []
        ...     for position in range(len(prompt), len(prompt) + 5):
        ...         said.append(step.token_id)
        ...         step = session.decode(step.token_id, position)
        >>> bytes(said).isascii()
        True
        >>> session.info.kind, session.info.max_seq_length
        ('fake', 512)

    Args:
        artifact: its folder, a path or any fsspec URL; fetched once to this machine's cache, and
            checked. None only for kind ``fake``.
        kind: of the session; None takes the artifact's own. ``eager`` opens any artifact.
        threads: inside the session, 1 or more; pinned for all of torch in this process.

    Returns:
        The session; see ``rdu_batch.sessions.door`` for what it promises. ``close()`` it.

    Raises:
        UsageError: neither an artifact nor kind ``fake``.
        SpecError: there is no such kind.
        ArtifactError: the artifact is missing, damaged, or cannot be opened here.
    """
    from rdu_batch.sessions.artifact_store import fetch_artifact
    from rdu_batch.sessions.registry import open_session as open_by_kind

    if threads < 1:
        raise UsageError(f"threads is {threads}, wanted 1 or more")
    if artifact is None:
        if kind is None:
            raise UsageError("open_session needs an artifact's folder, or kind='fake'")
        return open_by_kind(kind, None, threads=threads)
    local = fetch_artifact(os.fspath(artifact))
    return open_by_kind(kind or local.artifact.kind, local, threads=threads)


def load_job(
    job: Job,
    *,
    overrides: Sequence[str] = (),
    date: str | dt.date | None = None,
    limit: int | None = None,
) -> JobSpec:
    """A job as a checked, frozen ``JobSpec``; arguments as ``run`` has them.

    Example::

        >>> import rdu_batch
        >>> with open("job.yaml", "w") as file:
        ...     _ = file.write('''
        ... version: 1
        ... name: nightly
        ... input: {urls: ["in/{date}/*.jsonl"]}
        ... prompt: {field: text}
        ... session: {kind: fake}
        ... output: {url: "out/{date}"}
        ... ''')
        >>> spec = rdu_batch.load_job("job.yaml", date="2026-11-22", limit=10)
        >>> spec.output.url, spec.input.limit
        ('out/2026-11-22', 10)

    Raises:
        SpecError: it cannot be read, or holds mistakes; all of them at once.
        UsageError: a ``JobSpec`` with something to change in it, or an argument of a kind that
            none can be.
    """
    check_job_arguments(job, overrides, limit)
    if isinstance(job, JobSpec):
        if overrides or date is not None or limit is not None:
            raise UsageError(
                "overrides, date and limit change what a job file says, and this job was read "
                "already; give its path or a mapping, or change it where it is read (load_job)"
            )
        return job
    if isinstance(job, Mapping):
        text, source = text_of_mapping(job), "the job"
    else:
        text, source = text_of_file(Path(job)), os.fspath(job)
    day = None if date is None else day_text(date)
    return load_spec(text, source=source, overrides=overrides, date=day, limit=limit)
