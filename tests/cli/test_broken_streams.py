"""What becomes of standard output and standard error never decides what becomes of a job."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rdu_batch.cli.standard_streams import LossyWriter


@pytest.fixture
def shell(tmp_path):
    """Runs a line of bash beside a job of some rows; ``rdu-batch`` is ours."""
    rows = [json.dumps({"text": f"{n} [[fake:sleep 0.02]]"}) for n in range(20)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    job = {
        "version": 1,
        "name": "streams",
        "input": {"urls": ["rows.jsonl"]},
        "prompt": {"field": "text"},
        "session": {"kind": "fake"},
        "output": {"url": "out"},
    }
    (tmp_path / "job.yaml").write_text(json.dumps(job))

    def run(line, **changes):
        line = line.replace("rdu-batch", f"{sys.executable} -m rdu_batch")
        return subprocess.run(
            ["bash", "-c", f"set -o pipefail; {line}"],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env=os.environ | changes,
        )

    run.folder = tmp_path
    return run


RUN = "rdu-batch run job.yaml --executor inline"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "line",
    [
        f"{{ {RUN}; }} 2> >(head -c 1 > /dev/null)",
        f"{RUN} 2> /dev/full",
        f"{RUN} 2>&-",
        f"{RUN} 2>&- 0<&-",
    ],
    ids=["reader left", "full", "closed", "no streams but one"],
)
def test_a_log_that_cannot_be_written_ends_no_job(shell, line, unbuffered):
    """The job goes on, and its JSON line comes."""
    done = shell(line, PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "complete"
    assert (shell.folder / "out" / "_SUCCESS").exists()


def test_an_error_is_still_told_to_programs_where_people_cannot_be_told(shell):
    """Click's own message, and ours."""
    for line, code in (("rdu-batch run none.yaml", 3), ("rdu-batch run --no-such", 2)):
        for where in ("2> /dev/full", "2>&-"):
            done = shell(f"{line} {where}")
            assert (done.returncode, json.loads(done.stdout)["exit"]) == (code, code)


def test_nothing_is_written_into_a_file_that_took_a_closed_streams_number(shell):
    """Native code prints to the number, whatever is open there."""
    code = (
        "import os, sys; from rdu_batch.cli.standard_streams import guard_standard_streams; "
        "guard_standard_streams(); file = open('mine', 'w'); os.write(2, b'native'); "
        "assert file.fileno() > 2; assert os.get_inheritable(2)"
    )
    assert shell(f'{sys.executable} -c "{code}" 2>&-').returncode == 0
    assert (shell.folder / "mine").read_text() == ""


@pytest.mark.parametrize(
    ("place", "words"),
    [("> /dev/full", "No space left"), (">&-", "nobody reads"), ("| head -0", "nobody reads")],
)
def test_a_job_ends_as_it_did_whoever_reads_its_last_line(shell, place, words):
    """One sentence says that the line is lost; Python adds none of its own."""
    done = shell(f"{RUN} {place}")
    assert done.returncode == 0
    *_, last = done.stderr.splitlines()
    assert words in last
    assert last.endswith("(exit 0)")
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert (shell.folder / "out" / "_SUCCESS").exists()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        *(("--help", 1), ("run --help", 0), ("schema", 1), ("plan job.yaml", 1)),
        *(("status out", 1), ("verify out", 7), ("doctor", 1), ("nosuch", 2)),
    ],
)
def test_a_full_disk_is_told_in_one_sentence_by_every_verb(shell, words, code):
    """Exit 1 where the text was all there is, and else the verb's own code."""
    done = shell(f"rdu-batch {words} > /dev/full")
    assert done.returncode == code
    assert done.stderr.splitlines()[-1] == (
        "rdu-batch: standard output cannot be written, and is lost: No space left on device "
        f"(exit {code})"
    )
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", ["--help", "schema", "plan job.yaml", "status out", "doctor"])
def test_a_reader_that_has_enough_is_no_error(shell, words):
    """As of ``| head``: exit 0."""
    done = shell(f"rdu-batch {words} | head -0")
    assert done.returncode == 0
    assert "nobody reads standard output" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_another_pipe_that_breaks_is_told(shell):
    """Click would end with 1 and without a word."""
    code = (
        "import sys; from rdu_batch.cli import main\n"
        "def broken(): raise BrokenPipeError(32, 'Broken pipe')\n"
        "import rdu_batch.cli.schema as schema; schema.schema.callback = broken\n"
        "sys.exit(main.run(['schema']))"
    )
    (shell.folder / "broken.py").write_text(code)
    here = str(Path(__file__).parents[2])
    done = shell(f"{sys.executable} broken.py", PYTHONPATH=here)
    assert done.returncode == 1
    assert "internal error" in json.loads(done.stdout)["message"]


def test_a_stream_that_is_not_ready_is_waited_for():
    """Another program that shares a terminal may have made it non-blocking."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    content, seen = os.urandom(1 << 20), bytearray()

    def read_all():
        while len(seen) < len(content):
            seen.extend(os.read(read, 1 << 16))

    reader = threading.Thread(target=read_all)
    reader.start()
    writer = LossyWriter(write, "<test>")
    assert writer.write(content) == len(content)
    reader.join()
    os.close(read)
    os.close(write)
    assert bytes(seen) == content
    assert writer.failure is None
