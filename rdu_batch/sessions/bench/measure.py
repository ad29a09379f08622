"""All of a bench, in order: open, prefill, decode, side by side."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from rdu_batch.sessions.artifact_store import fetch_artifact, read_artifact
from rdu_batch.sessions.bench.report import BenchReport
from rdu_batch.sessions.bench.settings import prompt_ids

if TYPE_CHECKING:
    from collections.abc import Callable

    from rdu_batch.sessions.artifact import LocalArtifact
    from rdu_batch.sessions.bench.model_costs import ModelCosts
    from rdu_batch.sessions.bench.plain import PlainModel
    from rdu_batch.sessions.bench.rates import MemoryReader
    from rdu_batch.sessions.bench.rounds import DecodeRound
    from rdu_batch.sessions.bench.settings import BenchSettings
    from rdu_batch.sessions.door import Session


def bench(settings: BenchSettings, say: Callable[[str], None]) -> BenchReport:
    """Measure an artifact on this machine.

    Args:
        settings: what, and how often.
        say: called with one line per finished stage.

    Raises:
        UsageError: the artifact cannot be measured like this. Ends the command (exit 2).
        ArtifactError: missing, damaged or for another target (exit 8).
        SessionBroken: a session failed.
    """
    artifact = read_artifact(settings.artifact_url)
    settings = settings.fitted(artifact)
    settings.check_artifact(artifact)
    num_processors = len(os.sched_getaffinity(0))
    if settings.threads > num_processors:
        say(
            f"note: {settings.threads} threads on {num_processors} processors take turns: slow, "
            "and no measure of this machine"
        )
    if settings.without:
        from rdu_batch.sessions.inductor.patches import PATCHES

        settings.check_patches(PATCHES)
    return _measure(fetch_artifact(settings.artifact_url), settings, say)


def _measure(
    local: LocalArtifact, settings: BenchSettings, say: Callable[[str], None]
) -> BenchReport:
    """Everything after the checks; nothing that it opens or starts outlives it."""
    from rdu_batch.sessions.bench.model_costs import costs_of
    from rdu_batch.sessions.bench.plain import PlainModel
    from rdu_batch.sessions.bench.prefill import prefill_rounds
    from rdu_batch.sessions.bench.rates import MatrixProduct, MemoryReader
    from rdu_batch.sessions.bench.side_by_side import run_side_by_side, time_opening
    from rdu_batch.sessions.inductor.geometry import KERNELS_FILE, TORCH_DTYPES, WEIGHTS_FILE

    artifact = local.artifact
    ids = prompt_ids(settings.prompt_tokens, artifact.vocab_size)
    costs = costs_of(local, settings.prompt_tokens)
    with ExitStack() as stack:
        session, variant = _open_sessions(local, settings, stack, say)
        opening = time_opening(settings)
        say(f"open: {opening.open_s:.2f} s")
        eager = PlainModel(local, ids, settings.new_tokens) if settings.against_eager else None
        device = artifact.target.device
        product = MatrixProduct(TORCH_DTYPES[artifact.dtype], device)
        prefill = prefill_rounds(session, ids, product, settings.rounds, eager)
        say(f"prefill: {len(prefill)} rounds")
        kernels = local.path(KERNELS_FILE) if device == "cpu" else None
        reader = MemoryReader(kernels, local.path(WEIGHTS_FILE), device)
        decode = _decode(settings, ids, costs, reader, [session, *variant], eager)
        say(f"decode: {len(decode)} rounds")
        side_by_side = None
        if settings.sessions is not None:
            bytes_per_token = sum(one.bytes_per_token for one in decode) / len(decode)
            side_by_side = run_side_by_side(settings, reader, bytes_per_token)
            say(f"side by side: {settings.sessions} sessions")
    return BenchReport(
        settings=settings,
        artifact=artifact,
        weight_bytes=costs.weight_bytes,
        prefill_flop=costs.prefill_flop,
        computed_tokens=costs.computed_tokens,
        opening=opening,
        decode=decode,
        prefill=prefill,
        eager_open_s=None if eager is None else eager.open_s,
        side_by_side=side_by_side,
    )


def _open_sessions(
    local: LocalArtifact, settings: BenchSettings, stack: ExitStack, say: Callable[[str], None]
) -> tuple[Session, list[Session]]:
    """The artifact's session, and that of the variant if there is one; the stack closes both."""
    from rdu_batch.sessions.bench.variant import compiled_without
    from rdu_batch.sessions.registry import open_session

    opened = open_session("inductor", local, threads=settings.threads)
    stack.callback(opened.close)
    if not settings.without:
        return opened, []
    other = stack.enter_context(compiled_without(local, settings.without, settings.keep, say))
    variant = open_session("inductor", other, threads=settings.threads)
    stack.callback(variant.close)
    return opened, [variant]


def _decode(
    settings: BenchSettings,
    ids: list[int],
    costs: ModelCosts,
    reader: MemoryReader,
    sessions: list[Session],
    eager: PlainModel | None,
) -> list[DecodeRound]:
    from rdu_batch.sessions.bench.decode import DecodeBench, Row

    rows = [Row(session, ids, settings.new_tokens) for session in sessions]
    return DecodeBench(reader, costs.bytes_per_token, *rows).run(settings.rounds, eager)
