"""Tiles of a node are handed out to its session processes, one mask each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rdu_batch.errors import ArtifactError, SessionBroken, UsageError
from rdu_batch.sessions.samba.tile_lease import lease_tiles

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
MASKS = "0xf0000000 0x0f000000"
#: Says its mask, and lives until its input ends.
HOLDER = """
import os, sys
from rdu_batch.sessions.samba.tile_lease import lease_tiles
lease_tiles(wait_s=0)
print(os.environ["SF_RNT_TILE_AFFINITY"], flush=True)
sys.stdin.read()
"""
#: Where others would sleep, it says that it waits, until it is told to look again.
WAITER = """
import os, sys, time
from rdu_batch.sessions.samba import tile_lease
def wait(_seconds):
    print("waits", flush=True)
    sys.stdin.readline()
time.sleep = wait
tile_lease.lease_tiles(wait_s=300)
print(os.environ["SF_RNT_TILE_AFFINITY"], flush=True)
"""
#: Opens a session of each kind, as if in two processes.
OPENER = """
import os
from types import SimpleNamespace
from rdu_batch.errors import ArtifactError
from rdu_batch.sessions.rdu_engine.session import RduEngineSession
from rdu_batch.sessions.samba.session import SambaSession
for kind in SambaSession, RduEngineSession:
    try:
        kind.open(SimpleNamespace(artifact=None), threads=1)
    except ArtifactError as error:
        print(error)
    del os.environ["SF_RNT_TILE_AFFINITY"]
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The node's private folder, and two masks, for this process and those that it starts."""
    monkeypatch.setenv("RDU_BATCH_CACHE", str(tmp_path))
    monkeypatch.setenv("RDU_BATCH_TILE_MASKS", MASKS)
    monkeypatch.delenv("SF_RNT_TILE_AFFINITY", raising=False)
    return tmp_path


@contextmanager
def started(code: str) -> Iterator[subprocess.Popen[str]]:
    """Another process of this node."""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> str:
    """The next line that it says."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_each_process_has_a_mask_of_its_own_until_it_ends(end: signal.Signals) -> None:
    """The third is refused, with what to do; the mask of one that ended is free again."""
    with started(HOLDER) as first, started(HOLDER) as second:
        assert {said(first), said(second)} == set(MASKS.split())
        with pytest.raises(SessionBroken, match=r"all 2 tile masks.*RDU: 1.*\"RDU\": 2"):
            lease_tiles(wait_s=0)
        assert "SF_RNT_TILE_AFFINITY" not in os.environ
        second.send_signal(end)
        second.wait(30)
        with started(HOLDER) as third:
            assert said(third) in MASKS.split()
            with pytest.raises(SessionBroken):
                lease_tiles(wait_s=0)


def test_a_mask_is_waited_for_while_its_holder_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that replaces another may start before that one's session is gone."""
    monkeypatch.setenv("RDU_BATCH_TILE_MASKS", "0xF0")
    with started(HOLDER) as holder:
        assert said(holder) == "0xF0"
        with started(WAITER) as waiter:
            assert said(waiter) == "waits"
            holder.kill()
            holder.wait(30)
            assert waiter.stdin is not None
            waiter.stdin.write("look again\n")
            waiter.stdin.flush()
            assert said(waiter) == "0xF0"


@pytest.mark.parametrize("masks", [None, "", " , "])
def test_without_masks_nothing_is_done(
    cache: Path, monkeypatch: pytest.MonkeyPatch, masks: str | None
) -> None:
    """Slurm or SambaFlow choose the tiles then."""
    if masks is None:
        monkeypatch.delenv("RDU_BATCH_TILE_MASKS")
    else:
        monkeypatch.setenv("RDU_BATCH_TILE_MASKS", masks)
    lease_tiles(wait_s=0)
    assert "SF_RNT_TILE_AFFINITY" not in os.environ
    assert list(cache.iterdir()) == []


def test_an_affinity_that_is_set_already_is_left_alone(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever set it for this process knows better, and none of the masks is taken."""
    monkeypatch.setenv("SF_RNT_TILE_AFFINITY", "0x1")
    lease_tiles(wait_s=0)
    assert os.environ["SF_RNT_TILE_AFFINITY"] == "0x1"
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize(
    ("masks", "complaint"),
    [
        ("0xf0000000 f", "'f' is no mask of tiles"),
        ("0xf0,0x0", "'0x0' is no mask"),
        ("0xff 0x0f", "'0x0f' shares tiles with one before it"),
        ("0xf0 0xF0", "'0xF0' shares tiles"),
    ],
)
def test_masks_that_cannot_be_are_refused_with_what_was_found(
    monkeypatch: pytest.MonkeyPatch, masks: str, complaint: str
) -> None:
    """A second session on the same tiles would fail in the middle of a job."""
    monkeypatch.setenv("RDU_BATCH_TILE_MASKS", masks)
    with pytest.raises(UsageError, match=f"{complaint}.*wanted hexadecimal"):
        lease_tiles(wait_s=0)


def test_a_folder_that_cannot_hold_locks_is_named(cache: Path) -> None:
    """A file lies where the folder should."""
    (cache / "tiles").write_text("")
    with pytest.raises(ArtifactError, match=rf"{cache}/tiles.*set RDU_BATCH_CACHE"):
        lease_tiles(wait_s=0)


def test_a_session_has_its_tiles_before_the_runtime_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runtime may look at its environment as soon as it is loaded: these say how it was then."""
    packages = tmp_path / "packages"
    for name in ("sambaflow", "rdu_engine"):
        (packages / name).mkdir(parents=True)
        (packages / name / "__init__.py").write_text(
            f"import os\nraise ImportError('{name} saw ' + os.environ['SF_RNT_TILE_AFFINITY'])\n"
        )
    monkeypatch.setenv("PYTHONPATH", str(packages))
    with started(OPENER) as process:
        first, second = process.communicate(timeout=120)[0].splitlines()
    assert "sambaflow saw 0xf0000000" in first
    assert "rdu_engine saw 0x0f000000" in second
