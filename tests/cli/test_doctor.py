"""``rdu-batch doctor``: what it says is what this machine's own tools say."""

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version

import pytest

from rdu_batch.runner.machine import look_at_store, measure_copy_bytes_per_s
from rdu_batch.storage.store import open_store


def doctor(*words, **changes):
    done = subprocess.run(
        [sys.executable, "-m", "rdu_batch", "doctor", *words],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | changes,
    )
    return done, json.loads(done.stdout.splitlines()[-1])


def test_it_says_what_is_here(tmp_path):
    """Versions, cores, memory, and a store that can be listed."""
    (tmp_path / "a.jsonl").write_text("{}\n")
    done, told = doctor("--store", str(tmp_path), CXX="")
    assert (done.returncode, told["exit"]) == (0, 0)
    assert told["python"] == platform.python_version()
    assert told["packages"]["torch"] == version("torch")
    assert told["packages"]["sambaflow"] is None
    assert told["cores"] == len(os.sched_getaffinity(0))
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert told["memory_bytes"] == pytest.approx(pages, rel=0.1)
    said = subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True)
    assert told["compiler"] == said.stdout.splitlines()[0]
    assert told["stores"][0]["objects"] == 1
    assert f"{tmp_path}: 1 object, " in done.stderr
    assert "no SambaFlow" in done.stderr


def test_what_is_missing_is_said_with_what_to_do():
    """A compiler that is not there is no error: `run` needs none."""
    done, told = doctor(CXX="/nowhere/g++")
    assert (done.returncode, told["compiler"]) == (0, None)
    assert "install g++, or name one in CXX" in done.stderr


def test_a_store_that_cannot_be_reached_decides_the_exit_code(tmp_path):
    """With its message, after everything else was said."""
    done, told = doctor("--store", "nothing-such://bucket/x", "--store", str(tmp_path))
    assert told["exit"] == done.returncode != 0
    assert told["stores"][0]["objects"] is None
    assert told["stores"][0]["error"] in done.stderr
    assert told["stores"][1]["exit"] == 0


def test_a_path_where_there_is_no_folder_is_no_empty_store(tmp_path):
    """Exit 6, saying whether there is nothing, or a file."""
    file = tmp_path / "rows.jsonl"
    file.write_text("{}")
    done, told = doctor("--store", str(tmp_path / "none"))
    assert (done.returncode, told["stores"][0]["objects"]) == (6, None)
    assert f"there is nothing at {tmp_path}/none" in done.stderr
    done, told = doctor("--store", str(file))
    assert (done.returncode, told["stores"][0]["exit"]) == (6, 6)
    assert f"{file} is a file: wanted a folder, such as {tmp_path}" in done.stderr
    (tmp_path / "empty").mkdir()
    done, told = doctor("--store", str(tmp_path / "empty"))
    assert (done.returncode, told["stores"][0]["objects"]) == (0, 0)
    assert "0 objects directly in it" in done.stderr


def test_a_file_of_an_object_store_is_told_from_an_empty_folder():
    """Such a store knows no folders: what is not there may be one, too."""
    store = open_store("memory://doctor/in")
    store.put_whole("rows.jsonl", b"{}")
    assert look_at_store("memory://doctor/in").objects == 1
    assert "is a file" in look_at_store("memory://doctor/in/rows.jsonl").error
    assert look_at_store("memory://doctor/none").objects == 0


def test_it_loads_neither_torch_nor_ray():
    """A machine where one of them cannot be imported is just where it is wanted."""
    code = (
        "import sys; from rdu_batch.cli.main import run; run(['doctor']); "
        "sys.exit(bool({'torch', 'ray', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_copying_is_counted_in_bytes_read_and_written():
    """Faster than a disk, slower than any memory made."""
    assert 1e8 < measure_copy_bytes_per_s(1 << 24) < 1e13


def test_a_password_in_a_url_is_not_repeated():
    """What is said here is pasted into bug reports."""
    done, told = doctor("--store", "nothing-such://me:hunter2@host/x")
    assert "hunter2" not in done.stdout + done.stderr
    assert told["stores"][0]["url"].startswith("nothing-such://")
