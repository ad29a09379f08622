"""What this machine is and has, for ``rdu-batch doctor`` and bug reports.

Promises: imports none of the libraries that it asks about, starts nothing but ``--version`` of a
compiler and ``nvidia-smi``, writes nothing, and reads no environment variable that may hold a
secret. Does not: judge; what is missing is ``None``; ``compile`` and ``run`` say what they need.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rdu_batch import __version__
from rdu_batch.errors import ObjectMissing, RduBatchError, StoreError
from rdu_batch.sessions.inductor.target import INSTRUCTION_SETS, machine_cpu_flags
from rdu_batch.storage.options_in_force import without_secrets
from rdu_batch.storage.store import open_store
from rdu_batch.storage.urls import split_object

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rdu_batch.storage.store import Store

#: Distributions that decide what can be done, and drivers of stores.
PACKAGES: Final = (
    *("torch", "transformers", "tokenizers", "ray", "fsspec", "pydantic", "numpy"),
    *("pyarrow", "zstandard", "s3fs", "gcsfs", "adlfs", "paramiko", "webdav4", "aiohttp"),
    *("huggingface_hub", "gguf", "sambaflow"),
)
#: Far more than any processor's cache, so that memory is what is measured.
_COPIED_BYTES: Final = 256 << 20
_COPIES: Final = 3
_ASK_TIMEOUT_S: Final = 20.0


@dataclass(frozen=True)
class StoreAccess:
    """One look at a folder of a store: nothing is written."""

    url: str
    #: Objects directly in the folder; None where it could not be listed, or there is none.
    objects: int | None
    list_s: float
    #: Why not.
    error: str | None
    exit: int


@dataclass(frozen=True)
class Machine:
    """What was found. Versions are ``None`` for what is not installed."""

    rdu_batch: str
    python: str
    system: str
    packages: dict[str, str | None]
    processor: str | None
    #: Of ``sessions/inductor/target.py``: what an artifact can be compiled for and run as here.
    instruction_sets: tuple[str, ...]
    #: That this process may use.
    cores: int
    memory_bytes: int | None
    memory_available_bytes: int | None
    #: Bytes read and written by one thread that copies.
    copy_bytes_per_s: float
    #: First line of its ``--version``; None where there is none.
    compiler: str | None
    #: Name, memory and driver of each, as ``nvidia-smi`` says them.
    gpus: tuple[str, ...]
    stores: tuple[StoreAccess, ...]


def examine_machine(store_urls: Sequence[str] = ()) -> Machine:
    """Look at this machine, and list the folders of ``store_urls``; takes a second or two."""
    memory = _meminfo()
    return Machine(
        rdu_batch=__version__,
        python=platform.python_version(),
        system=platform.platform(),
        packages={name: _version_of(name) for name in PACKAGES},
        processor=_processor(),
        instruction_sets=tuple(
            one.name for one in INSTRUCTION_SETS if machine_cpu_flags().issuperset(one.cpu_flags)
        ),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=memory.get("MemTotal"),
        memory_available_bytes=memory.get("MemAvailable"),
        copy_bytes_per_s=measure_copy_bytes_per_s(),
        compiler=next(iter(_say([os.environ.get("CXX") or "g++", "--version"])), None),
        gpus=_say(
            ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
        ),
        stores=tuple(look_at_store(url) for url in store_urls),
    )


def measure_copy_bytes_per_s(copied_bytes: int = _COPIED_BYTES) -> float:
    """Bytes a second that one thread reads and writes while it copies; the best of three."""
    source, target = bytearray(copied_bytes), bytearray(copied_bytes)
    best_s = float("inf")
    for _ in range(_COPIES):
        began_s = time.perf_counter()
        target[:] = source
        best_s = min(best_s, time.perf_counter() - began_s)
    return 2 * copied_bytes / best_s


def look_at_store(url: str) -> StoreAccess:
    """List a folder; an error of ours is part of the answer."""
    shown = without_secrets(url)
    began_s = time.perf_counter()
    try:
        store = open_store(url)
        objects = len(store.list_names(""))
        if not objects:
            _check_folder(store)
    except RduBatchError as error:
        told = without_secrets(str(error))
        return StoreAccess(shown, None, time.perf_counter() - began_s, told, error.exit_code)
    return StoreAccess(shown, objects, time.perf_counter() - began_s, None, 0)


def _check_folder(store: Store) -> None:
    """What an empty listing leaves open: object stores know no folders, so there it may be right.

    Raises:
        StoreError: it is a file, or a local path where nothing is.
    """
    folder, name = split_object(store.url)
    if store.protocol == "file":
        path = Path(store.url)
        if not path.exists():
            raise ObjectMissing(f"there is nothing at {store.url}: wanted a folder")
        is_file = not path.is_dir()
    else:
        is_file = bool(name) and open_store(folder).exists(name)
    if is_file:
        raise StoreError(f"{store.url} is a file: wanted a folder, such as {folder}")


def _version_of(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str | None:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or None)


def _meminfo() -> dict[str, int]:
    """Bytes by name; empty where Linux does not tell."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return {}
    pairs = (line.partition(":") for line in meminfo.read_text().splitlines())
    return {name: int(rest.split()[0]) << 10 for name, _, rest in pairs if rest.endswith("kB")}


def _say(command: list[str]) -> tuple[str, ...]:
    """The lines that a program prints; none where it is missing or fails."""
    if shutil.which(command[0]) is None:
        return ()
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_ASK_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    if done.returncode:
        return ()
    return tuple(line.strip() for line in done.stdout.splitlines() if line.strip())
