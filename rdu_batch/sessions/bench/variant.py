"""An artifact's own model, compiled again without some patches, to see what they buy.

Promises: model, type, limits and instruction set are the artifact's own; nothing but the patches
differs. Does not: need the checkpoint; an artifact holds all of it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from rdu_batch.errors import ArtifactError, UsageError
from rdu_batch.sessions.artifact_store import fetch_artifact
from rdu_batch.sessions.bench.rates import read_function_name
from rdu_batch.sessions.checkpoint import ModelSource
from rdu_batch.sessions.compile import compile_artifact
from rdu_batch.sessions.compile_settings import CompileSettings
from rdu_batch.sessions.inductor.geometry import (
    GRAPHS,
    KERNELS_FILE,
    WEIGHTS_FILE,
    constants_file,
    graph_file,
)
from rdu_batch.sessions.inductor.kernels.build import kernels_suffix
from rdu_batch.sessions.inductor.target import choose_instruction_set
from rdu_batch.sessions.inductor.weights import map_tensors, original_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rdu_batch.sessions.artifact import LocalArtifact

_COMPILED_FILES = frozenset(
    (KERNELS_FILE, *map(graph_file, GRAPHS), *map(constants_file, GRAPHS)),
)


def check_compiler() -> None:
    """Whether there is something to compile with.

    Raises:
        UsageError: there is not. Ends the command (exit 2).
    """
    compiler = os.environ.get("CXX") or "g++"
    if not shutil.which(compiler):
        raise UsageError(
            f"--without compiles the model again, and there is no {compiler} here; install it, "
            "or bench without --without"
        )


def check_same_code(local: LocalArtifact) -> None:
    """Whether this program would compile the artifact's kernels as they are.

    Raises:
        ArtifactError: it would not, so a variant would differ by more than its patches.
    """
    suffix = kernels_suffix(choose_instruction_set(local.artifact.target.instruction_set))
    found = read_function_name(local.path(KERNELS_FILE).read_bytes())
    if found is None or not found.endswith("_" + suffix):
        raise ArtifactError(
            f"{local.artifact.url}: its decode kernels are {found}, this program's end with "
            f"{suffix}; a variant would differ by more than its patches; compile the model again"
        )


@contextmanager
def compiled_without(
    local: LocalArtifact, patches: tuple[str, ...], keep: str | None, say: Callable[[str], None]
) -> Iterator[LocalArtifact]:
    """The artifact compiled again without these patches (and without those it lacks already).

    Args:
        local: the artifact.
        patches: names of ``inductor/patches.py``.
        keep: folder that keeps what is compiled; None: gone on the way out.
        say: called with one line per finished stage.

    Raises:
        ArtifactError: it cannot be compiled, or was compiled by another version of this program.
        UsageError: there is no compiler.
    """
    check_compiler()
    check_same_code(local)
    artifact = local.artifact
    without = tuple(sorted({*artifact.without, *patches}))
    # Whatever decides an artifact and stands in it by the same name.
    same = {
        field.name: getattr(artifact, field.name)
        for field in fields(CompileSettings)
        if hasattr(artifact, field.name)
    }
    instruction_set = artifact.target.instruction_set
    settings = CompileSettings(**same | {"instruction_set": instruction_set, "without": without})
    with tempfile.TemporaryDirectory(prefix="rdu_batch-bench-") as temporary:
        plain = Path(temporary) / "model"
        write_plain_folder(local, plain)
        name = "-".join([artifact.settings_digest.removeprefix("sha256:")[:12], *without])
        place = Path(keep or temporary).absolute() / name
        compile_artifact(ModelSource(str(plain)), str(place), settings, say)
        yield fetch_artifact(str(place))


def write_plain_folder(local: LocalArtifact, folder: Path) -> None:
    """Write the checkpoint an artifact was compiled from as a plain transformers folder."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    for name in local.artifact.files:
        if name not in _COMPILED_FILES and name != WEIGHTS_FILE:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(local.path(name), folder / name)
    tensors = original_tensors(map_tensors(local.path(WEIGHTS_FILE)), local.artifact.layouts)
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
