"""Load a compiled graph and bind its weights; needs torch, but no compiler and no Inductor.

Promises: weights are bound, not copied; the caller keeps them alive. Does not: check digests; only
what ``fetch_artifact`` has checked may be opened, because a package is native code.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdu_batch.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


def load_kernels(path: Path) -> Any:
    """Load the decode kernels for all graphs that are opened after it; loading again is nothing.

    Raises:
        ArtifactError: the file is no shared library for this machine.
    """
    import ctypes

    try:
        # Global, so that graphs find them; their names hold a digest and cannot meet others.
        return ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise ArtifactError(
            f"{path}: the decode kernels do not load: {error}; compile the model again here"
        ) from error


def open_package(path: Path, device: str = "cpu") -> Any:
    """Load the native code of one graph, for ``cpu`` or for the first GPU of this process.

    Uses the class under ``torch._inductor.aoti_load_package``: the function imports all of
    Inductor first, which takes seconds and does nothing for a package that is loaded as it is.

    Raises:
        ArtifactError: the loader refuses the file.
    """
    import torch

    on_gpu = device == "cuda"
    try:
        # On a GPU without torch's own synchronization between calls: it asks for the state of
        # events, which must not be done while a CUDA graph is captured. One stream orders calls.
        package = torch._C._aoti.AOTIModelPackageLoader(  # noqa: SLF001 - see above
            str(path), "model", on_gpu, 1, 0 if on_gpu else -1
        )
    except RuntimeError as error:
        raise ArtifactError(
            f"{path}: the compiled graph does not load: {error}; compile the model again here"
        ) from error
    _remove_unpacked()
    return package


def _remove_unpacked() -> None:
    """Remove the folders that loaded graphs were unpacked to; the code itself stays mapped.

    The loader removes its own folder only when it ends in order, and sessions are killed.
    """
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return
    temporary = Path(tempfile.gettempdir()).resolve()
    for line in maps.read_text(errors="replace").splitlines():
        mapped = Path("/" + line.partition("/")[2])
        if not mapped.is_relative_to(temporary) or mapped.suffix != ".so":
            continue
        unpacked = temporary / mapped.relative_to(temporary).parts[0]
        if unpacked.name.startswith("aotinductor_"):
            shutil.rmtree(unpacked, ignore_errors=True)


def bind_tensors(package: Any, tensors: Mapping[str, Tensor], *, path: Path) -> None:
    """Give a loaded graph its weights and constants, by the names it wants, without copying.

    Raises:
        ArtifactError: the graph wants a tensor that is not there.
    """
    wanted = package.get_constant_fqns()
    missing = [name for name in wanted if name not in tensors]
    if missing:
        raise ArtifactError(
            f"{path}: the graph wants {', '.join(missing[:3])}, which the artifact does not hold; "
            "compile the model again"
        )
    package.load_constants({name: tensors[name] for name in wanted}, False, True, True)
