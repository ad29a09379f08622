"""From a checkpoint to an artifact: load, write, export, compile, check, publish.

Promises: an artifact either is whole or has no ``artifact.json``; compiling the same thing to the
same place again does nothing; a compiled artifact has been compared with plain transformers before
it is published. One without weights is traced and compared with made-up weights, which are never
published; ``weight_binding.py`` brings the real ones. Does not: run rows.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rdu_batch.errors import ArtifactError, InputError, UsageError
from rdu_batch.sessions.artifact import Artifact, LocalArtifact, Target
from rdu_batch.sessions.artifact_store import (
    artifact_at,
    check_same_settings,
    damage_of,
    file_entry,
    folder_entries,
    publish_artifact,
)
from rdu_batch.sessions.checkpoint import find_checkpoint
from rdu_batch.sessions.compile_out import check_out
from rdu_batch.sessions.exact_gelu import use_exact_gelu
from rdu_batch.sessions.inductor.build import compare_with_plain, compile_graphs
from rdu_batch.sessions.inductor.families import cannot_compile
from rdu_batch.sessions.inductor.geometry import (
    KERNELS_FILE,
    WEIGHTS_FILE,
    CacheShape,
    GraphSettings,
    cache_length_for,
    cache_shape_of,
)
from rdu_batch.sessions.inductor.kernels.build import build_kernels
from rdu_batch.sessions.inductor.rotary import rotary_limit
from rdu_batch.sessions.inductor.target import choose_gpu_arch, choose_instruction_set
from rdu_batch.sessions.measured_speed import MEASURED_FILE, measure_speed
from rdu_batch.sessions.model_files import write_model
from rdu_batch.sessions.perplexity import QualityProbe
from rdu_batch.sessions.plain_model import check_causal, read_config
from rdu_batch.sessions.samba.pef import PefCompiler
from rdu_batch.storage.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rdu_batch.sessions.checkpoint import Checkpoint, ModelSource
    from rdu_batch.sessions.compile_settings import CompileSettings

#: Counts as part of what an artifact was compiled from: raise it when graphs or files change.
RECIPE_VERSION = 2
#: Flags of SambaFlow's whose value is a file here.
FLAGS_WITH_FILES = ("--compiler-configs-file", "--optimization-rules")


@dataclass(frozen=True)
class Compiled:
    """An artifact, and whether it was there before."""

    artifact: Artifact
    already_compiled: bool


def compile_artifact(
    source: ModelSource,
    out_url: str,
    settings: CompileSettings,
    on_progress: Callable[[str], None] = lambda _line: None,
) -> Compiled:
    """Compile a model to ``out_url``; the artifact that lies there if it is the same.

    Args:
        source: where weights, config and tokenizer come from.
        out_url: folder of the artifact, any fsspec URL.
        settings: how to compile.
        on_progress: called with one line per finished stage.

    Raises:
        UsageError: settings that the model cannot have, or ``out_url`` holds other files. Ends the
            command (exit 2).
        InputError: the checkpoint is missing, or does not fit its config (exit 4).
        ArtifactError: ``out_url`` holds another artifact, or the model cannot be compiled, or its
            graphs do not compute what transformers computes, or this machine is not one that the
            graphs would run on, or has no SambaFlow for kind samba (exit 8).
    """
    if source.without_weights and settings.weights != "plain":
        raise UsageError(
            f"weights {settings.weights} without a checkpoint: weights are made {settings.weights} "
            "when they are compiled; name them (--checkpoint_name FILE), or use --weights plain"
        )
    gpu_arch = choose_gpu_arch(settings.device)
    checkpoint = find_checkpoint(source)
    config = read_config(checkpoint.config_path)
    check_causal(config, checkpoint.config_path)
    if settings.gelu == "erf":
        use_exact_gelu(config)
    _check_positions(config, settings.max_seq_length)
    if settings.kind == "inductor":
        _check_rotary(config, settings.max_seq_length)
    pef = PefCompiler.of(config, settings, out_url) if settings.kind == "samba" else None
    plan = _plan(checkpoint, config, settings, gpu_arch, pef)
    found = artifact_at(out_url)
    if found is None:
        check_out(out_url)
    else:
        check_same_settings(found, plan)
        damage = damage_of(found)
        if damage is None:
            on_progress(f"already compiled: {out_url}")
            return Compiled(found, already_compiled=True)
        on_progress(f"damaged, so compiled again: {damage}")
    on_progress(
        f"begin: {plan.model_family} to {plan.kind}, {plan.dtype}, {plan.max_seq_length} positions"
    )
    with _temporary_folder() as folder:
        local = _fill(folder, checkpoint, config, plan, on_progress, pef)
        artifact = publish_artifact(local.artifact, folder, out_url)
        on_progress(f"write: {sum(e.size_bytes for e in artifact.files.values()):,} bytes")
        _publish_speed(local, out_url, on_progress)
    return Compiled(artifact, already_compiled=False)


def _publish_speed(local: LocalArtifact, url: str, on_progress: Callable[[str], None]) -> None:
    """Say beside the artifact how fast it is here, so that ``plan`` can predict."""
    speed = measure_speed(local)
    if speed is not None:
        open_store(url).put_whole(MEASURED_FILE, speed.to_bytes())
        on_progress(
            f"measure: {speed.prefill_tokens_per_s.high:,.0f} prompt tokens/s, "
            f"{speed.decode_tokens_per_s.high:,.1f} generated tokens/s a session"
        )


def _check_positions(config: Any, max_seq_length: int) -> None:
    text_config = config.get_text_config()
    limit = getattr(text_config, "max_position_embeddings", None)
    if limit is not None and max_seq_length > limit:
        raise UsageError(
            f"max_seq_length is {max_seq_length}, but this {config.model_type} model has "
            f"{limit} positions; use --max_seq_length {limit} or less"
        )


def _check_rotary(config: Any, max_seq_length: int) -> None:
    limit = rotary_limit(config)
    if limit is not None and max_seq_length > limit:
        raise UsageError(
            f"max_seq_length is {max_seq_length}, but the rotary frequencies of this "
            f"{config.model_type} model change behind position {limit}, which a compiled graph "
            f"cannot follow; use --max_seq_length {limit} or less, or --kind eager"
        )


def _plan(
    checkpoint: Checkpoint,
    config: Any,
    settings: CompileSettings,
    gpu_arch: str,
    pef: PefCompiler | None,
) -> Artifact:
    """The artifact as it will be, without files: everything known before the model is loaded."""
    import transformers

    compiled = settings.kind == "inductor"
    chosen = choose_instruction_set(settings.instruction_set) if compiled else None
    cache = _cache_shape(config, settings.kind)
    plan = Artifact(
        kind=settings.kind,
        dtype=settings.dtype,
        max_seq_length=settings.max_seq_length,
        prefill_chunk=settings.chunk,
        cache_length=cache_length_for(settings.max_seq_length, settings.chunk),
        num_layers=cache.num_layers,
        num_kv_heads=cache.num_kv_heads,
        head_size=cache.head_size,
        vocab_size=int(config.get_text_config().vocab_size),
        threads=None,
        without=tuple(sorted(settings.without)) if compiled else (),
        weights=settings.weights,
        model_family=str(config.model_type),
        has_weights=checkpoint.weights_path is not None,
        model_digest=checkpoint.model_digest(),
        settings_digest="",
        target=Target(
            device=settings.device if pef is None else "rdu",
            machine=platform.machine() if compiled else "",
            instruction_set=chosen.name if chosen else "",
            cpu_flags=chosen.cpu_flags if chosen else (),
            torch_version=torch.__version__,
            transformers_version=transformers.__version__,
            gpu_arch=gpu_arch,
        ),
        files={},
    )
    further = [RECIPE_VERSION, checkpoint.tokenizer_digest()]
    further += [] if pef is None else [pef.settings, *_flag_files(settings.samba_flags)]
    further += [] if settings.gelu == "config" else [["gelu", settings.gelu]]
    decides = plan.to_bytes() + json.dumps(further).encode()
    return replace(plan, settings_digest="sha256:" + hashlib.sha256(decides).hexdigest())


def _flag_files(flags: tuple[str, ...]) -> list[list[str]]:
    """sha256 of the files that SambaFlow is told to read: what they say decides the PEF, too."""
    try:
        return [
            [flag, file_entry(Path(value)).sha256]
            for flag, value in pairwise(flags)
            if flag in FLAGS_WITH_FILES
        ]
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be read: {error.strerror}") from error


def _cache_shape(config: Any, kind: str) -> CacheShape:
    """What the graphs' cache will be; an eager session grows its own, whatever the model keeps."""
    try:
        return cache_shape_of(config)
    except ArtifactError as error:
        if kind == "inductor":
            raise cannot_compile(config.model_type, str(error)) from error
        return CacheShape(num_layers=0, num_kv_heads=0, head_size=0)


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    """A folder to compile in; a full or unwritable one is an ArtifactError that names it."""
    try:
        with tempfile.TemporaryDirectory(prefix="rdu_batch-compile-") as temporary:
            yield Path(temporary)
    except OSError as error:
        place = tempfile.tempdir or os.environ.get("TMPDIR")
        raise ArtifactError(
            f"{place}: cannot compile there: {error}; nothing was published; free some space, or "
            "set TMPDIR to another folder"
        ) from error


def _fill(
    folder: Path,
    checkpoint: Checkpoint,
    config: Any,
    plan: Artifact,
    on_progress: Callable[[str], None],
    pef: PefCompiler | None,
) -> LocalArtifact:
    """Make every file of the artifact in ``folder``."""
    layouts, model = write_model(folder, checkpoint, config, plan)
    on_progress(
        f"load: {plan.model_family}, {plan.dtype}, {len(layouts)} tensors in another layout"
        + ("" if plan.has_weights else "; made-up weights, which are not published")
    )
    probe = QualityProbe.of(folder, plan, model) if plan.weights == "int8" else None
    del model
    if plan.kind == "inductor":
        settings = GraphSettings(
            dtype=plan.dtype,
            max_seq_length=plan.max_seq_length,
            prefill_chunk=plan.prefill_chunk,
            cache_length=plan.cache_length,
            instruction_set=plan.target.instruction_set,
            layouts=layouts,
            without=plan.without,
            device=plan.target.device,
        )
        if settings.device == "cpu":
            build_kernels(folder / KERNELS_FILE, choose_instruction_set(settings.instruction_set))
        compile_graphs(folder, settings, on_progress)
    if pef is not None:
        on_progress(pef.compile(folder, plan.dtype))
    artifact = replace(plan, files=folder_entries(folder), layouts=layouts, url=str(folder))
    local = LocalArtifact(folder, artifact)
    if plan.kind == "inductor":
        on_progress(compare_with_plain(local))
    if probe is not None:
        quality, line = probe.compare(local)
        on_progress(line)
        local = LocalArtifact(folder, replace(artifact, quality=quality))
    return local if plan.has_weights else _without_weights(local)


def _without_weights(local: LocalArtifact) -> LocalArtifact:
    """Take the made-up weights away again."""
    local.path(WEIGHTS_FILE).unlink()
    files = {name: entry for name, entry in local.artifact.files.items() if name != WEIGHTS_FILE}
    return LocalArtifact(local.folder, replace(local.artifact, files=files))
