"""Compile the graphs of a half-made artifact, and compare them with plain transformers.

Promises: both graphs are compiled at once, each in a process of its own that ends with this one's
call; what a compiler said is in the error. Does not: publish anything; see ``compile.py``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import torch

import rdu_batch
from rdu_batch.errors import ArtifactError
from rdu_batch.sessions.inductor.geometry import GRAPHS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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
        ArtifactError: one failed; with the end of what it said.
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
        )
        for graph in GRAPHS
    }
    try:
        errors = _watch(running, on_progress)
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    for graph, process in running.items():
        if process.returncode != 0:
            raise ArtifactError(
                f"compiling the {graph} graph failed (exit {process.returncode}); it needs a C++ "
                f"compiler (g++) here; the end of what it said:\n{errors[graph][-3000:]}"
            )


def _watch(
    running: Mapping[str, subprocess.Popen[str]], on_progress: Callable[[str], None]
) -> dict[str, str]:
    """Pass on each process's lines until all end; gives back what they wrote to stderr."""
    errors: dict[str, str] = {}

    def pass_on(process: subprocess.Popen[str]) -> None:
        for line in process.stdout or ():
            on_progress(line.rstrip("\n"))

    def keep(graph: str, process: subprocess.Popen[str]) -> None:
        errors[graph] = process.stderr.read() if process.stderr else ""

    threads = [
        thread
        for graph, process in running.items()
        for thread in (
            threading.Thread(target=pass_on, args=(process,), daemon=True),
            threading.Thread(target=keep, args=(graph, process), daemon=True),
        )
    ]
    for thread in threads:
        thread.start()
    for process in running.values():
        process.wait()
    for thread in threads:
        thread.join()
    return errors


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
    finally:
        torch.set_num_threads(threads)

    def distance(logits: torch.Tensor) -> float:
        return float(((logits - exact).abs().mean(-1) / exact.std(-1)).mean())

    allowed = _SUM_ORDER_DISTANCE + _PLAIN_DISTANCES * distance(plain)
    found = f"{distance(compiled):.1e} from fp32 (plain {artifact.dtype}: {distance(plain):.1e})"
    if not distance(compiled) <= allowed:
        raise ArtifactError(
            f"the compiled {artifact.model_family} model is {found}, allowed are {allowed:.1e} "
            "standard deviations of the logits; nothing was written; this model needs a patch of "
            "its own, use --kind eager for it"
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
