"""Compile the graphs of a half-made artifact, and compare them with plain transformers.

Promises: both graphs are compiled at once, each in a process of its own that ends with this one's
call; what a compiler said is in the error. Does not: publish anything; see ``compile.py``.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import torch

import rdu_batch
from rdu_batch.errors import ArtifactError, SessionBroken
from rdu_batch.sessions.inductor.families import cannot_compile
from rdu_batch.sessions.inductor.geometry import GRAPHS, REFUSED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from rdu_batch.sessions.artifact import LocalArtifact
    from rdu_batch.sessions.door import Session
    from rdu_batch.sessions.inductor.geometry import GraphSettings

#: How far compiled logits may be from an fp32 reference, in the logits' standard deviations: this
#: much for another order of sums, and this many times the distance of a plain run in the same type.
_SUM_ORDER_DISTANCE = 1e-3
_PLAIN_DISTANCES = 1.5


def compile_graphs(
    folder: Path, settings: GraphSettings, on_progress: Callable[[str], None]
) -> None:
    """Export and compile both graphs at once, each in a process of its own.

    Raises:
        ArtifactError: the model cannot be compiled, and why; or one process failed, with the end
            of what it said.
    """
    package_root = str(Path(rdu_batch.__file__).resolve().parent.parent)
    search_path = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": search_path}
    module = "rdu_batch.sessions.inductor.export"
    running = {
        graph: subprocess.Popen(
            [sys.executable, "-m", module, str(folder), graph, settings.to_argument()],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            process_group=0,
        )
        for graph in GRAPHS
    }
    try:
        failed, errors = _watch(running, on_progress)
    finally:
        _kill(running.values())
    if failed is not None:
        _, refused, why = errors[failed].rpartition(REFUSED)
        if refused and running[failed].returncode == ArtifactError.exit_code:
            raise ArtifactError(why.strip())
        raise _compile_error(failed, running[failed].returncode, errors[failed])


def _compile_error(graph: str, exit_code: int, said: str) -> ArtifactError:
    compiler = os.environ.get("CXX") or "g++"
    needed = "" if shutil.which(compiler) else f"there is no {compiler} here, install it; "
    return ArtifactError(
        f"compiling the {graph} graph failed (exit {exit_code}); {needed}the end of what it "
        f"said:\n{said[-3000:]}"
    )


def _watch(
    running: Mapping[str, subprocess.Popen[str]], on_progress: Callable[[str], None]
) -> tuple[str | None, dict[str, str]]:
    """Pass on each process's lines until all end; the first that fails ends the others.

    Gives back which one failed, and what each wrote to stderr.
    """
    errors: dict[str, str] = {}
    failed: list[str] = []

    def pass_on(process: subprocess.Popen[str]) -> None:
        for line in process.stdout or ():
            on_progress(line.rstrip("\n"))

    def keep(graph: str, process: subprocess.Popen[str]) -> None:
        errors[graph] = process.stderr.read() if process.stderr else ""

    def end_others(graph: str, process: subprocess.Popen[str]) -> None:
        if process.wait() != 0:
            failed.append(graph)
            _kill(running.values())

    threads = [
        thread
        for graph, process in running.items()
        for thread in (
            threading.Thread(target=pass_on, args=(process,), daemon=True),
            threading.Thread(target=keep, args=(graph, process), daemon=True),
            threading.Thread(target=end_others, args=(graph, process), daemon=True),
        )
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return next(iter(failed), None), errors


def _kill(processes: Iterable[subprocess.Popen[str]]) -> None:
    """End what still runs, with the compilers it started: they hold its pipes open."""
    for process in processes:
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def compare_with_plain(local: LocalArtifact) -> str:
    """Compare the graphs, and plain transformers in the same type, with an fp32 run.

    Returns the line to report. Needs memory for the model in fp32, once.

    Raises:
        ArtifactError: the graphs are farther away than rounding explains. Nothing is published.
    """
    from rdu_batch.sessions.eager import EagerSession
    from rdu_batch.sessions.inductor.session import InductorSession

    threads = torch.get_num_threads()
    artifact = local.artifact
    num_steps = min(4, artifact.max_seq_length - 1)
    # More than one chunk, the last one partly filled, where the limits allow it.
    prompt_length = min(artifact.prefill_chunk + 5, artifact.max_seq_length - num_steps)
    ids = [(index * 7919 + 13) % artifact.vocab_size for index in range(prompt_length + num_steps)]
    try:
        plain = _logits(EagerSession.open(local, threads=threads), ids, prompt_length)
        exact = _logits(EagerSession.open_fp32(local, threads=threads), ids, prompt_length)
        compiled = _logits(InductorSession.open(local, threads=threads), ids, prompt_length)
    except SessionBroken as error:
        reason = f"it cannot be compared with plain transformers: {error}"
        raise cannot_compile(artifact.model_family, reason) from error
    finally:
        torch.set_num_threads(threads)

    def distance(logits: torch.Tensor) -> float:
        return float(((logits - exact).abs().mean(-1) / exact.std(-1)).mean())

    allowed = _SUM_ORDER_DISTANCE + _PLAIN_DISTANCES * distance(plain)
    found = f"{distance(compiled):.1e} from fp32 (plain {artifact.dtype}: {distance(plain):.1e})"
    if not distance(compiled) <= allowed:
        raise cannot_compile(
            artifact.model_family,
            f"compiled, it is {found}, allowed are {allowed:.1e} standard deviations of the logits",
        )
    return f"check: {found}"


def _logits(session: Session, ids: list[int], prompt_length: int) -> torch.Tensor:
    """Logits after the prompt and after each further token, [steps, V]."""
    steps = [session.prefill(ids[:prompt_length], want_logits=True)]
    steps += [
        session.decode(ids[position], position, want_logits=True)
        for position in range(prompt_length, len(ids))
    ]
    session.close()
    return torch.cat([step.logits_1V for step in steps if step.logits_1V is not None])
