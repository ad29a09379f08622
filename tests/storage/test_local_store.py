"""What only a local folder promises: durable names, umask, no leftovers, plain words."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rdu_batch.errors import ObjectMissing, StoreError
from rdu_batch.storage.store import open_object, open_store

StartPython = Callable[[str], "subprocess.Popen[str]"]
NUM_RACERS = 8
NUM_ROUNDS = 25


def _all_files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_of_racing_processes_exactly_one_creates(tmp_path: Path, run_python: StartPython) -> None:
    """Eight processes race for each of many names; the content is the winner's, whole."""
    program = f"""
import sys
from rdu_batch.storage.store import open_store
store = open_store({str(tmp_path)!r})
print("ready", flush=True)
racer = sys.stdin.readline().strip()
for turn in range({NUM_ROUNDS}):
    if store.create_once(f"once/{{turn}}", (racer + " ").encode() * 10_000):
        print(turn)
"""
    racers = [run_python(program) for _ in range(NUM_RACERS)]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for number, racer in enumerate(racers):
        assert racer.stdin is not None
        racer.stdin.write(f"{number}\n")
        racer.stdin.flush()
    won = []
    for number, racer in enumerate(racers):
        output, errors = racer.communicate(timeout=120)
        assert racer.returncode == 0, errors
        won += [(int(turn), number) for turn in output.split()]
    assert sorted(turn for turn, _ in won) == list(range(NUM_ROUNDS))
    for turn, number in won:
        assert (tmp_path / "once" / str(turn)).read_bytes() == f"{number} ".encode() * 10_000
    assert len(_all_files(tmp_path)) == NUM_ROUNDS


@pytest.mark.parametrize("num_leftovers", [0, 1])
def test_a_writer_killed_in_the_middle_leaves_no_object(
    tmp_path: Path, run_python: StartPython, num_leftovers: int
) -> None:
    """The target keeps its old content; nothing is left, or one file that no listing shows.

    The latter only where the file system knows no files without a name.
    """
    store = open_store(str(tmp_path / "out"))
    store.put_whole("part", b"old")
    source = tmp_path / "endless"
    os.mkfifo(source)
    program = f"""
import os
from rdu_batch.storage.store import open_store
from tests.storage.conftest import refuse_nameless_files
if {num_leftovers}:
    os.open = refuse_nameless_files()
open_store({str(tmp_path / "out")!r}).put_file("part", {str(source)!r})
"""
    writer = run_python(program)
    with source.open("wb") as feed:
        feed.write(b"new" * 5_000_000)
        feed.flush()
        assert store.read("part") == b"old"
        writer.kill()
        writer.communicate(timeout=60)
    assert store.read("part") == b"old"
    assert store.list_names("") == ["part"]
    leftovers = [name for name in _all_files(tmp_path / "out") if name != "part"]
    assert len(leftovers) == num_leftovers
    assert all(name.startswith(".") for name in leftovers)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_get_the_permissions_of_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    """Not the private mode of temporary files: others read what a job wrote."""
    store = open_store(str(tmp_path))
    before = os.umask(umask)
    try:
        store.put_whole("put", b"1")
        store.create_once("created", b"1")
        store.copy("put", "copied")
        store.put_file("file", str(tmp_path / "put"))
    finally:
        os.umask(before)
    for name in ("put", "created", "copied", "file"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode


def test_no_temporary_file_stays_after_a_lost_race(tmp_path: Path) -> None:
    """Created, refused, replaced and copied: only the targets are there."""
    store = open_store(str(tmp_path))
    assert store.create_once("a", b"1")
    assert not store.create_once("a", b"2")
    store.put_whole("b", b"1")
    store.copy("b", "c")
    assert _all_files(tmp_path) == ["a", "b", "c"]


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 64 KiB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)],
        check=False,
        capture_output=True,
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a small tmpfs here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_said_plainly_and_leaves_nothing(tiny_disk: Path, tmp_path: Path) -> None:
    """Every way to write names the URL, the lack of space and what to do."""
    store = open_store(str(tiny_disk))
    store.put_whole("x", b"old")
    big = tmp_path / "big"
    big.write_bytes(b"x" * 200_000)
    for attempt in (
        lambda: store.put_whole("x", big.read_bytes()),
        lambda: store.put_file("x", str(big)),
        lambda: store.create_once("y", big.read_bytes()),
    ):
        with pytest.raises(StoreError, match="no space left there; free some space") as caught:
            attempt()
        assert str(tiny_disk) in str(caught.value)
    assert store.read("x") == b"old"
    assert _all_files(tiny_disk) == ["x"]


def test_a_file_size_limit_is_said_plainly(tmp_path: Path, run_python: StartPython) -> None:
    """A real limit of the process (ulimit -f) ends a write as an error that names it."""
    program = f"""
import resource
from rdu_batch.errors import StoreError
from rdu_batch.storage.store import open_store
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    open_store({str(tmp_path)!r}).put_whole("x", b"x" * 5000)
except StoreError as error:
    print(error)
"""
    output, errors = run_python(program).communicate(timeout=60)
    assert "larger than allowed there (see ulimit -f)" in output, errors
    assert _all_files(tmp_path) == []


def test_a_path_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    """The error says that a part of the path is a file."""
    (tmp_path / "file").write_bytes(b"1")
    store = open_store(str(tmp_path / "file" / "out"))
    with pytest.raises(StoreError, match="a part of the path is a file, not a folder"):
        store.put_whole("x", b"1")
    with pytest.raises(StoreError, match="a part of the path is a file, not a folder"):
        store.create_once("x", b"1")


def test_a_folder_that_the_kernel_refuses_is_an_error() -> None:
    """Nobody, root included, makes files in /proc."""
    with pytest.raises(StoreError, match="cannot write /proc/rdu_batch"):
        open_store("/proc").put_whole("rdu_batch", b"1")


def test_a_folder_in_the_way_is_an_error(tmp_path: Path) -> None:
    """A write never lands inside a folder of the target's name."""
    (tmp_path / "x").mkdir()
    store = open_store(str(tmp_path))
    with pytest.raises(StoreError, match="there is a folder of that name"):
        store.put_whole("x", b"1")
    assert _all_files(tmp_path) == []


def test_linked_folders_are_entered_once_and_dead_links_are_listed(tmp_path: Path) -> None:
    """A loop of links ends; a link to nothing shows, because silence would lose an input."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "x").write_bytes(b"1")
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "up").symlink_to(tmp_path)
    (tmp_path / "dead").symlink_to(tmp_path / "nowhere")
    store = open_store(str(tmp_path))
    assert store.list_names("", recursive=True) == ["dead", "linked/x", "real/x"]
    with pytest.raises(ObjectMissing):
        store.read("dead")


def test_local_urls_of_all_forms_open_the_same_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Absolute, relative, file://, local://, with a slash at the end, and from the home folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "in").mkdir()
    for url in ("in", "./in/", f"{tmp_path}/in", f"file://{tmp_path}/in/", "~/in", "other/../in"):
        assert open_store(url).url == str(tmp_path / "in")
    assert open_store(f"local://{tmp_path}/in").protocol == "file"
    for url in ("in/x", f"file://{tmp_path}/in/x", f"{tmp_path}/in/x"):
        store, name = open_object(url)
        assert (store.url, name) == (str(tmp_path / "in"), "x")
    store, name = open_object("x")
    assert (store.url, name) == (str(tmp_path), "x")
    store, name = open_object("/x")
    assert (store.url, name) == ("/", "x")
