"""A checkpoint's weights for an artifact that is compiled already: the tutorial's order of things.

The tutorial compiles a PEF from a config, and names the checkpoint only when it runs. So here: a
graph is the same whatever the weights, and an artifact of graphs gets its weights afterwards.
Promises: what comes out is an artifact like any other, whose digest covers graphs and weights; it
is made once, in the node's private cache, whole or not at all; every weight is the checkpoint's,
and fits the config by name, shape and type. Does not: compile, or change what it was given.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rdu_batch.errors import ArtifactError, InputError, UsageError
from rdu_batch.sessions.artifact import ARTIFACT_FILE, Artifact, LocalArtifact
from rdu_batch.sessions.artifact_cache import keep_in_cache
from rdu_batch.sessions.artifact_store import (
    artifact_at,
    fetch_artifact,
    file_entry,
    folder_entries,
    is_whole,
    publish_artifact,
    read_artifact,
)
from rdu_batch.sessions.checkpoint import Checkpoint, checkpoint_file
from rdu_batch.sessions.compile_out import check_out

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: Counts as part of what was bound: raise it when the same two give other files.
_BINDING_VERSION: Final = 1


def bind_weights(
    url: str, checkpoint_name: str, on_progress: Callable[[str], None] = lambda _line: None
) -> LocalArtifact:
    """The artifact at ``url`` with the weights of a checkpoint; weights that it has are replaced.

    Args:
        url: folder of the artifact, any fsspec URL.
        checkpoint_name: file of weights by name: safetensors, or plain tensors saved by torch; of
            a GPT-2 also in the layout of a model that is patched for the RDU.
        on_progress: called with a line when the weights are bound, and not found bound already.

    Raises:
        UsageError: the artifact's weights are int8, which are made when it is compiled (exit 2).
        InputError: there is no such file, or it does not fit the artifact's config (exit 4).
        ArtifactError: the artifact is missing or damaged, or the cache cannot be used (exit 8).
    """
    compiled = read_artifact(url, needs_weights=False)
    if compiled.weights != "plain":
        raise UsageError(
            f"{url}: its weights are {compiled.weights}, made of the checkpoint it was compiled "
            "from; leave --checkpoint_name out, or compile that checkpoint"
        )
    path = checkpoint_file(checkpoint_name)
    decides = [_BINDING_VERSION, compiled.digest, file_entry(path).sha256]
    binding = hashlib.sha256(json.dumps(decides).encode()).hexdigest()

    def fill(folder: Path) -> None:
        _bind(folder, url, path, binding)
        on_progress(f"weights of {checkpoint_name} bound to {url}")

    folder = keep_in_cache(f"bound-{binding}", is_whole=_is_bound, fill=fill)
    return LocalArtifact(folder, _read(folder))


def keep_bound(local: LocalArtifact, url: str) -> str:
    """Publish an artifact to another place, where other nodes can read it; gives back the place.

    Raises:
        UsageError: other files lie there. Ends the command (exit 2).
        ArtifactError: another artifact lies there (exit 8).
        StoreError: it cannot be written (exit 6).
    """
    if artifact_at(url) is None:
        check_out(url)
    return publish_artifact(local.artifact, local.folder, url).url


def _bind(folder: Path, url: str, checkpoint: Path, binding: str) -> None:
    from rdu_batch.sessions.inductor.geometry import TORCH_DTYPES, WEIGHTS_FILE
    from rdu_batch.sessions.model_files import layouts_of, write_weights

    local = fetch_artifact(url, needs_weights=False)
    compiled = local.artifact
    for name in compiled.files:
        if name != WEIGHTS_FILE:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(local.path(name), folder / name)
    model = _model_of(folder, checkpoint, compiled.dtype)
    layouts = layouts_of(model, compiled)
    _check_tied(layouts, compiled.layouts, checkpoint)
    write_weights(folder, model, layouts, TORCH_DTYPES[compiled.dtype])
    bound = replace(
        compiled,
        has_weights=True,
        model_digest=_digest(compiled.model_digest, binding),
        settings_digest=_digest(compiled.settings_digest, binding),
        files=folder_entries(folder),
    )
    (folder / ARTIFACT_FILE).write_bytes(bound.to_bytes())


def _model_of(folder: Path, checkpoint: Path, dtype: str) -> object:
    """The plain model of the artifact's config and a checkpoint's weights."""
    from rdu_batch.sessions.inductor.geometry import TORCH_DTYPES
    from rdu_batch.sessions.plain_model import load_model, read_config

    places = Checkpoint(config_path=folder, weights_path=checkpoint, tokenizer_path=folder)
    return load_model(places, read_config(folder), TORCH_DTYPES[dtype])


def _check_tied(found: Mapping[str, str], wanted: Mapping[str, str], checkpoint: Path) -> None:
    """Refuse weights that are apart where the graphs know one, or the other way round."""
    if found == wanted:
        return
    names = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
    raise InputError(
        f"{checkpoint}: the graphs were compiled with {', '.join(names)} tied to other weights, or "
        "apart from them, and in this checkpoint it is the other way; compile the model with "
        "--checkpoint_name and this file"
    )


def _is_bound(folder: Path) -> bool:
    try:
        return is_whole(LocalArtifact(folder, _read(folder)))
    except (OSError, ArtifactError):
        return False


def _read(folder: Path) -> Artifact:
    return Artifact.from_bytes((folder / ARTIFACT_FILE).read_bytes(), url=str(folder))


def _digest(compiled: str, binding: str) -> str:
    return "sha256:" + hashlib.sha256(f"{compiled} {binding}".encode()).hexdigest()
