"""Compile the decode kernels for a target; needs a C++ compiler, as all of ``compile`` does.

Promises: the library's name in a graph is a digest of its source and flags. Does not: load it; see
``package.py``.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from rdu_batch.errors import ArtifactError

if TYPE_CHECKING:
    from rdu_batch.sessions.inductor.target import InstructionSet

_SOURCE = Path(__file__).with_name("row_kernels.cpp")
#: All of them decide the library.
_SOURCES = (_SOURCE, *sorted(_SOURCE.parent.glob("*.h")))
#: ``fp-contract``: multiply and add as one, the same on every target that has it.
_FLAGS = ("-std=c++17", "-O3", "-ffp-contract=fast", "-fopenmp", "-fPIC", "-shared")


def kernels_suffix(instruction_set: InstructionSet) -> str:
    """What the names of this version of the library end with: 12 hex digits."""
    sources = [path.read_text() for path in _SOURCES]
    decides = [*_FLAGS, instruction_set.march, torch.__version__, *sources]
    return hashlib.sha256("\n".join(decides).encode()).hexdigest()[:12]


def build_kernels(library: Path, instruction_set: InstructionSet) -> None:
    """Compile the library to the file ``library``.

    Raises:
        ArtifactError: there is no compiler, or it failed; with the end of what it said.
    """
    package = Path(torch.__file__).parent
    compiler = os.environ.get("CXX") or "g++"
    command = [
        compiler,
        *_FLAGS,
        f"-march={instruction_set.march}",
        f"-DRDU_SUFFIX={kernels_suffix(instruction_set)}",
        f"-I{package / 'include'}",
        "-o",
        str(library),
        str(_SOURCE),
        f"-L{package / 'lib'}",
        "-ltorch_cpu",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise ArtifactError(
            f"compiling the decode kernels failed: {compiler}: {error.strerror}; install it"
        ) from error
    if done.returncode:
        raise ArtifactError(
            f"compiling the decode kernels failed ({compiler}, exit {done.returncode}); the end of "
            f"what it said:\n{done.stderr[-3000:]}"
        )
