"""Verify names what is wrong with an output, and passes one that is right."""

import json
import shutil
import subprocess

import pytest

from rdu_batch.errors import VerifyFailed
from rdu_batch.runner.verify import verify_output
from rdu_batch.runner.verify_rows import RowsOfInputs, ShardRows
from rdu_batch.storage.store import open_store


@pytest.fixture
def finished(job, troubled_lines, make_lines):
    """A finished job with blank-free input, several shards and a few dead letters."""
    lines = [*make_lines(10), *(line for line in troubled_lines if line), *make_lines(5)]
    done = job.write(lines).run("--executor", "inline")
    assert done.returncode == 0, done.stderr
    return job


def verify(job, output=None):
    return subprocess.run(
        job.command("verify", output or job.output), capture_output=True, text=True, check=False
    )


def test_an_undamaged_output_passes(finished, read_last_json):
    """Every row is there once; exit 0."""
    done = verify(finished)
    assert (done.returncode, read_last_json(done)["problems"]) == (0, [])
    assert read_last_json(done)["rows"] == 21


def test_a_moved_copy_without_its_run_folder_passes(finished, tmp_path):
    """The manifest and the parts are enough."""
    moved = tmp_path / "elsewhere"
    shutil.copytree(finished.output, moved, ignore=shutil.ignore_patterns("_run"))
    assert verify(finished, moved).returncode == 0


@pytest.mark.parametrize("with_run_folder", [True, False])
def test_one_flipped_byte_is_found(finished, with_run_folder):
    """A changed letter of a prediction: the part is named, and with the sealed copy the row."""
    part = finished.output / "part-00000-of-00003.jsonl"
    lines = part.read_bytes().splitlines(keepends=True)
    at = lines[4].index(b'"prediction":"') + len(b'"prediction":"')
    lines[4] = lines[4][:at] + bytes([lines[4][at] ^ 1]) + lines[4][at + 1 :]
    part.write_bytes(b"".join(lines))
    if not with_run_folder:
        shutil.rmtree(finished.output / "_run")
    done = verify(finished)
    assert done.returncode == 7
    assert "part-00000-of-00003.jsonl" in done.stderr
    if with_run_folder:
        assert "row [0, 5]" in done.stderr


@pytest.mark.parametrize("with_run_folder", [True, False])
def test_one_missing_row_is_named(finished, with_run_folder):
    """The row that is gone is named by input and line."""
    part = finished.output / "part-00001-of-00003.jsonl"
    lines = part.read_bytes().splitlines(keepends=True)
    gone = json.loads(lines.pop(1))["row"]
    part.write_bytes(b"".join(lines))
    if not with_run_folder:
        shutil.rmtree(finished.output / "_run")
    done = verify(finished)
    assert done.returncode == 7
    assert f"shard 1: row {gone} is missing" in done.stderr


@pytest.mark.parametrize("with_run_folder", [True, False])
def test_one_doubled_row_is_named(finished, with_run_folder):
    """A row that stands twice is named."""
    part = finished.output / "part-00002-of-00003.jsonl"
    lines = part.read_bytes().splitlines(keepends=True)
    part.write_bytes(b"".join([*lines[:2], lines[1], *lines[2:]]))
    if not with_run_folder:
        shutil.rmtree(finished.output / "_run")
    done = verify(finished)
    assert done.returncode == 7
    row = json.loads(lines[1])["row"]
    assert f"shard 2: row {row} is there more than once" in done.stderr


def test_a_row_moved_to_the_dead_letters_too_is_named(finished):
    """One outcome a row: not both a prediction and a dead letter."""
    dead = finished.output / "dead-00001-of-00003.jsonl"
    part_line = (finished.output / "part-00001-of-00003.jsonl").read_bytes().splitlines()[0]
    row = json.loads(part_line)["row"]
    letter = {"row": row, "id": None, "path": "rows.jsonl", "byte_offset": 0}
    letter |= {"reason": "not_json", "detail": ""}
    line = json.dumps(letter, separators=(",", ":")).encode() + b"\n"
    dead.write_bytes(line + dead.read_bytes())
    done = verify(finished)
    assert done.returncode == 7
    assert f"row {row} is there more than once" in done.stderr


@pytest.mark.parametrize("name", ["part-00001-of-00003.jsonl", "dead-00001-of-00003.jsonl"])
def test_a_missing_file_is_named(finished, name):
    """A part or dead letter file that is gone."""
    (finished.output / name).unlink()
    done = verify(finished)
    assert done.returncode == 7
    assert f"{name}: the file is missing" in done.stderr


@pytest.mark.parametrize("name", ["part-00007-of-00009.jsonl", "part-copy.jsonl"])
def test_a_part_that_the_manifest_does_not_know_is_named(finished, name):
    """A consumer's glob would read it; what to do is said."""
    (finished.output / name).write_text("")
    done = verify(finished)
    assert done.returncode == 7
    assert name in done.stderr
    assert "to repair" in done.stderr


def test_the_repair_that_verify_advises_works(finished, published_bytes):
    """Delete the damaged part, the manifest and _SUCCESS; run again."""
    before = published_bytes(finished.output)
    for name in ("part-00001-of-00003.jsonl", "manifest.json", "_SUCCESS"):
        (finished.output / name).unlink()
    assert finished.run("--executor", "inline").returncode == 0
    assert published_bytes(finished.output) == before


def test_a_changed_manifest_is_found(finished):
    """_SUCCESS holds its digest."""
    manifest = finished.output / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"rows_per_shard": 7', '"rows_per_shard": 8'))
    done = verify(finished)
    assert done.returncode == 7
    assert "manifest.json" in done.stderr


@pytest.mark.parametrize("name", ["manifest.json", "_SUCCESS", "part-00001-of-00003.jsonl"])
def test_a_flipped_bit_anywhere_is_found_without_a_traceback(finished, name):
    """Every byte in turn (every 7th of a longer file): damage is VerifyFailed or a problem."""
    path = finished.output / name
    store = open_store(str(finished.output))
    content = path.read_bytes()
    step = 1 if len(content) < 500 else 7
    for at in range(0, len(content), step):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        try:
            problems = verify_output(store).problems
        except VerifyFailed as error:
            problems = [str(error)]
        assert problems, f"byte {at} of {name}"
    path.write_bytes(content)
    assert verify_output(store).problems == []


def test_a_damaged_commit_record_only_hides_which_row_changed(finished):
    """Verify does not need _run/; what is unreadable there is not there."""
    (finished.output / "_run/commits/00000.json").write_text("{}")
    assert verify(finished).returncode == 0


def test_a_number_that_python_would_not_read_is_no_damage(job):
    """A carried integer of any length is the input's own text; Python's int stops at 4,300."""
    line = b'{"id": ' + b"7" * 5000 + b', "text": "a", "label": -' + b"8" * 5000 + b"}"
    job.write([line]).run("--executor", "inline")
    assert b"7" * 5000 in (job.output / "part-00000-of-00001.jsonl").read_bytes()
    done = verify(job)
    assert done.returncode == 0, done.stderr[:400]


def test_blank_lines_in_the_input_are_no_damage(job, troubled_lines):
    """Rows are fewer than lines; the gaps are where blank lines are."""
    job.write(troubled_lines, rows_per_shard=2).run("--executor", "inline")
    assert verify(job).returncode == 0


@pytest.mark.parametrize("with_run_folder", [True, False])
def test_a_missing_row_among_blank_lines_is_named_or_said_to_be_one_of_some(job, with_run_folder):
    """With the sealed copies exactly; without them, every line that it can have been on."""
    lines = [b'{"id":1,"text":"a"}', b"{bad", b'{"id":3,"text":"c"}', b"{worse", b"null", b""]
    lines += [b"   ", b'{"id":8,"text":"h"}']
    done = job.write(lines, limits={"max_dead_rows": "100%"}).run("--executor", "inline")
    assert done.returncode == 0, done.stderr
    dead = job.output / "dead-00000-of-00001.jsonl"
    gone, *kept = dead.read_bytes().splitlines(keepends=True)
    assert json.loads(gone)["row"] == [0, 2]
    dead.write_bytes(b"".join(kept))
    if not with_run_folder:
        shutil.rmtree(job.output / "_run")
    done = verify(job)
    assert done.returncode == 7
    if with_run_folder:
        assert "shard 0: row [0, 2] is missing" in done.stderr
    else:
        words = "shard 0: a row of input 0 is missing: one of the lines 2, 6 to 7"
        assert words in done.stderr
    assert "5 to 7" not in done.stderr


INPUTS = [
    {"index": 0, "rows": 4, "lines": 4},
    {"index": 1, "rows": 3, "lines": 6},
    {"index": 2, "rows": 2, "lines": 2},
]


@pytest.mark.parametrize(
    ("gone", "added", "wanted"),
    [
        ([], [], []),
        ([(0, 2)], [], ["row [0, 2] is missing"]),
        ([(0, 1), (2, 2)], [], ["row [0, 1] is missing", "row [2, 2] is missing"]),
        ([(1, 2)], [], ["a row of input 1 is missing: one of the lines 1 to 3, 5"]),
        (
            [(1, 2), (1, 6)],
            [(9, 1)],
            [
                "row [9, 1] does not belong to this shard",
                "2 rows of input 1 are missing: some of the lines 1 to 3, 5 to 6",
            ],
        ),
        ([], [(0, 9)], ["row [0, 9] does not belong to this shard"]),
    ],
)
def test_what_differs_is_told_as_far_as_it_is_known(gone, added, wanted):
    """By the manifest alone, and with the keys that are to be there."""
    keys = [(0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (1, 4), (1, 6), (2, 1), (2, 2)]
    rows = ShardRows(RowsOfInputs(INPUTS), 0, 9)
    there = sorted({*keys, *added} - set(gone))
    assert rows.has_each_once(there) == (not wanted)
    assert list(rows.differences(there, None)) == wanted
    exact = [f"row {list(key)} is missing" for key in gone]
    exact += [f"row {list(key)} does not belong to this shard" for key in added]
    assert sorted(rows.differences(there, keys)) == sorted(exact)


def test_of_many_lines_some_are_named():
    """A report stays readable."""
    rows = ShardRows(RowsOfInputs([{"index": 0, "rows": 30, "lines": 90}]), 0, 30)
    keys = [(0, 3 * number) for number in range(1, 30)]
    (problem,) = rows.differences(keys, None)
    assert problem.endswith("25 to 26, 28 to 29 and 20 ranges more")


def test_an_unfinished_output_says_so(job, make_lines, tmp_path):
    """Exit 7 and what to do, for a folder that holds no finished job."""
    done = verify(job, tmp_path)
    assert done.returncode == 7
    assert "no manifest.json" in done.stderr
    assert "Traceback" not in done.stderr
