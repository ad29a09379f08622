"""From a checkpoint to an artifact: load, write, export, compile, check, publish.

Promises: an artifact either is whole or has no ``artifact.json``; compiling the same thing to the
same place again does nothing; a compiled artifact has been compared with plain transformers before
it is published. Does not: run rows.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rdu_batch.errors import ArtifactError, UsageError
from rdu_batch.sessions.artifact import (
    DTYPES,
    Artifact,
    LocalArtifact,
    Target,
)
from rdu_batch.sessions.artifact_store import (
    artifact_at,
    check_same_settings,
    damage_of,
    folder_entries,
    publish_artifact,
)
from rdu_batch.sessions.checkpoint import find_checkpoint
from rdu_batch.sessions.inductor.build import compare_with_plain, compile_graphs
from rdu_batch.sessions.inductor.geometry import (
    TORCH_DTYPES,
    WEIGHTS_FILE,
    GraphSettings,
    cache_length_for,
    cache_shape_of,
)
from rdu_batch.sessions.inductor.target import choose_instruction_set
from rdu_batch.sessions.plain_model import load_model, read_config, save_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rdu_batch.sessions.checkpoint import Checkpoint, ModelSource

KINDS = ("inductor", "eager")
DEFAULT_PREFILL_CHUNK = 64
#: Counts as part of what an artifact was compiled from: raise it when graphs or files change.
RECIPE_VERSION = 1


@dataclass(frozen=True)
class Compiled:
    """An artifact, and whether it was there before."""

    artifact: Artifact
    already_compiled: bool


def compile_artifact(
    source: ModelSource,
    out_url: str,
    *,
    dtype: str,
    max_seq_length: int,
    kind: str = "inductor",
    prefill_chunk: int = DEFAULT_PREFILL_CHUNK,
    instruction_set: str | None = None,
    on_progress: Callable[[str], None] = lambda _line: None,
) -> Artifact:
    """Compile a model to ``out_url``; the artifact that lies there if it is the same.

    Args:
        source: where weights, config and tokenizer come from.
        out_url: folder of the artifact, any fsspec URL.
        dtype: ``bf16`` or ``fp32``.
        max_seq_length: prompt and generated tokens together; at most the model's positions.
        kind: ``inductor``, or ``eager`` for an artifact without graphs.
        prefill_chunk: tokens of one prefill call.
        instruction_set: ``avx512`` or ``avx2``; the best of this machine if None.
        on_progress: called with one line per finished stage.

    Raises:
        UsageError: settings that the model cannot have. Ends the command (exit 2).
        InputError: the checkpoint is missing, or does not fit its config (exit 4).
        ArtifactError: ``out_url`` holds another artifact, or the compiled graphs do not compute
            what transformers computes (exit 8).
    """
    return compile_or_reuse(
        source,
        out_url,
        dtype=dtype,
        max_seq_length=max_seq_length,
        kind=kind,
        prefill_chunk=prefill_chunk,
        instruction_set=instruction_set,
        on_progress=on_progress,
    ).artifact


def compile_or_reuse(
    source: ModelSource,
    out_url: str,
    *,
    dtype: str,
    max_seq_length: int,
    kind: str = "inductor",
    prefill_chunk: int = DEFAULT_PREFILL_CHUNK,
    instruction_set: str | None = None,
    on_progress: Callable[[str], None] = lambda _line: None,
) -> Compiled:
    """``compile_artifact`` that also says whether there was anything to do."""
    _check_settings(kind, dtype, max_seq_length, prefill_chunk)
    checkpoint = find_checkpoint(source)
    config = read_config(checkpoint.config_path)
    _check_positions(config, max_seq_length)
    plan = _plan(checkpoint, config, kind, dtype, max_seq_length, prefill_chunk, instruction_set)
    found = artifact_at(out_url)
    if found is not None:
        check_same_settings(found, plan)
        damage = damage_of(found)
        if damage is None:
            on_progress(f"already compiled: {out_url}")
            return Compiled(found, already_compiled=True)
        on_progress(f"damaged, so compiled again: {damage}")
    on_progress(f"begin: {plan.model_family} to {kind}, {dtype}, {max_seq_length} positions")
    with _temporary_folder() as folder:
        local = _fill(folder, checkpoint, config, plan, on_progress)
        artifact = publish_artifact(local.artifact, folder, out_url)
        on_progress(f"write: {sum(e.size_bytes for e in artifact.files.values()):,} bytes")
    return Compiled(artifact, already_compiled=False)


def _check_settings(kind: str, dtype: str, max_seq_length: int, prefill_chunk: int) -> None:
    if kind not in KINDS:
        raise UsageError(f"kind {kind!r}: compile makes {' or '.join(KINDS)}")
    if dtype not in DTYPES:
        raise UsageError(f"dtype {dtype!r}: wanted {' or '.join(DTYPES)}")
    if max_seq_length < 2:
        raise UsageError(f"max_seq_length is {max_seq_length}, wanted 2 or more")
    if prefill_chunk < 2:
        raise UsageError(f"prefill_chunk is {prefill_chunk}, wanted 2 or more")


def _check_positions(config: Any, max_seq_length: int) -> None:
    text_config = config.get_text_config()
    limit = getattr(text_config, "max_position_embeddings", None)
    if limit is not None and max_seq_length > limit:
        raise UsageError(
            f"max_seq_length is {max_seq_length}, but this {config.model_type} model has "
            f"{limit} positions; use --max_seq_length {limit} or less"
        )


def _plan(
    checkpoint: Checkpoint,
    config: Any,
    kind: str,
    dtype: str,
    max_seq_length: int,
    prefill_chunk: int,
    instruction_set: str | None,
) -> Artifact:
    """The artifact as it will be, without files: everything known before the model is loaded."""
    import transformers

    compiled = kind == "inductor"
    chosen = choose_instruction_set(instruction_set) if compiled else None
    chunk = min(prefill_chunk, max_seq_length) if compiled else 1
    cache = cache_shape_of(config)
    plan = Artifact(
        kind=kind,
        dtype=dtype,
        max_seq_length=max_seq_length,
        prefill_chunk=chunk,
        cache_length=cache_length_for(max_seq_length, chunk),
        num_layers=cache.num_layers,
        num_kv_heads=cache.num_kv_heads,
        head_size=cache.head_size,
        vocab_size=int(config.get_text_config().vocab_size),
        threads=None,
        model_family=str(config.model_type),
        model_digest=checkpoint.model_digest(),
        settings_digest="",
        target=Target(
            device="cpu",
            machine=platform.machine() if compiled else "",
            instruction_set=chosen.name if chosen else "",
            cpu_flags=chosen.cpu_flags if chosen else (),
            torch_version=torch.__version__,
            transformers_version=transformers.__version__,
        ),
        files={},
    )
    decides = plan.to_bytes() + json.dumps([RECIPE_VERSION, checkpoint.tokenizer_digest()]).encode()
    return replace(plan, settings_digest="sha256:" + hashlib.sha256(decides).hexdigest())


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
) -> LocalArtifact:
    """Make every file of the artifact in ``folder``."""
    layouts = _write_model(folder, checkpoint, config, plan)
    on_progress(
        f"load: {plan.model_family}, {plan.dtype}, {len(layouts)} tensors in another layout"
    )
    if plan.kind == "inductor":
        settings = GraphSettings(
            dtype=plan.dtype,
            max_seq_length=plan.max_seq_length,
            prefill_chunk=plan.prefill_chunk,
            cache_length=plan.cache_length,
            instruction_set=plan.target.instruction_set,
            layouts=layouts,
        )
        compile_graphs(folder, settings, on_progress)
    artifact = replace(plan, files=folder_entries(folder), layouts=layouts, url=str(folder))
    local = LocalArtifact(folder, artifact)
    if plan.kind == "inductor":
        on_progress(compare_with_plain(local))
    return local


def _write_model(
    folder: Path, checkpoint: Checkpoint, config: Any, plan: Artifact
) -> dict[str, str]:
    """Config, tokenizer and weights; gives back how tensors lie."""
    from rdu_batch.sessions.inductor.patches import transposed_weights
    from rdu_batch.sessions.inductor.weights import write_tensors

    save_tokenizer(checkpoint, folder)
    model = load_model(checkpoint, config, TORCH_DTYPES[plan.dtype])
    model.config.save_pretrained(folder)
    if model.generation_config is not None:
        model.generation_config.save_pretrained(folder)
    transposed = transposed_weights(model) if plan.kind == "inductor" else frozenset()
    layouts: dict[str, str] = {}
    tensors: dict[str, torch.Tensor] = {}
    first_name: dict[int, str] = {}
    for name, tensor in model.state_dict().items():
        same = first_name.setdefault(tensor.data_ptr(), name)
        if same != name and tensors[same].numel() == tensor.numel():
            layouts[name] = f"alias:{same}"
            continue
        if name in transposed:
            layouts[name] = "transposed"
        tensors[name] = tensor
    write_tensors(
        folder / WEIGHTS_FILE,
        {name: tensor.t() if name in transposed else tensor for name, tensor in tensors.items()},
    )
    return layouts
