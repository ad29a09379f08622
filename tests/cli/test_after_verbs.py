"""The verbs for finished outputs as a person types them: audit, gc and retry-dead."""

import json
import subprocess
import sys

import pytest
import yaml

from rdu_batch.cli.audit import _around

HEAVY = {"ray", "torch", "transformers"}


@pytest.fixture
def finished(tmp_path):
    """A finished output of three rows, one of them a dead letter, and its job file."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "one"}\nnot JSON\n{"text": "two"}\n')
    spec = {
        "version": 1,
        "name": "after",
        "input": {"urls": [str(rows)]},
        "prompt": {"field": "text"},
        "session": {"kind": "fake"},
        "output": {"url": str(tmp_path / "out")},
        "limits": {"max_dead_rows": 1},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(spec))
    assert rdu_batch("run", tmp_path / "job.yaml", "--executor", "inline").returncode == 0
    return tmp_path


def rdu_batch(*arguments):
    command = [sys.executable, "-m", "rdu_batch", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def last_json(done):
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.parametrize(
    "arguments",
    [
        ["gc", "{0}/out", "--sealed"],
        ["audit", "{0}/out"],
        ["retry-dead", "{0}/out", "{0}/job.yaml", "--into", "{0}/new", "--executor", "inline"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_verb_ends_with_a_json_object_and_loads_nothing_heavy(finished, arguments):
    """On the fake session: neither Ray nor torch; the session of an audit is another process."""
    code = (
        "import sys; from rdu_batch.cli.main import run; code = run(sys.argv[1:]); "
        f"loaded = sorted({HEAVY!r} & sys.modules.keys()); "
        "print(loaded, file=sys.stderr); sys.exit(code or len(loaded))"
    )
    filled = [text.format(finished) for text in arguments]
    done = subprocess.run(
        [sys.executable, "-c", code, *filled], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert last_json(done)["exit"] == 0


def test_every_verb_has_help():
    """What it does, its arguments, its exit codes where they are its own."""
    for verb, words in {
        "gc": ["OUTPUT", "--dry-run", "--sealed"],
        "audit": ["OUTPUT", "--sample", "--seed", "--artifact", "Exit 0"],
        "retry-dead": ["PARENT_OUTPUT JOB_FILE", "--into", "--reason", "--executor", "--set"],
    }.items():
        done = rdu_batch(verb, "--help")
        assert done.returncode == 0
        assert [word for word in words if word not in done.stdout] == []
        assert verb in rdu_batch("--help").stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["audit", "{0}/out", "--sample", "0"],
        ["audit"],
        ["gc"],
        ["retry-dead", "{0}/out", "{0}/job.yaml"],
        ["retry-dead", "{0}/out", "{0}/job.yaml", "--into", "{0}/new", "--reason", "unknown"],
    ],
)
def test_a_wrong_command_line_is_exit_2(finished, arguments):
    """Said by click, without a traceback."""
    done = rdu_batch(*[text.format(finished) for text in arguments])
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_gc_says_what_it_would_remove_and_removes_it(finished):
    """Counts for people on standard error, for programs on standard output."""
    out = finished / "out"
    (out / "_run/sealed/00000/part-00ff.jsonl").write_text("lost\n")
    dry = rdu_batch("gc", out, "--dry-run")
    assert "would remove sealed files that no commit record names: 1 object, 5 bytes" in dry.stderr
    document = last_json(dry)
    assert (document["objects"], document["bytes"], document["dry_run"]) == (1, 5, True)
    assert last_json(rdu_batch("gc", out)) == {**document, "dry_run": False}
    assert "nothing to remove" in rdu_batch("gc", out).stderr
    done = rdu_batch("gc", finished)
    assert (done.returncode, last_json(done)["exit"]) == (3, 3)


def test_audit_shows_published_and_now_side_by_side(finished):
    """The row, where it stands, the field and both values; the seed to draw it again."""
    part = finished / "out/part-00000-of-00001.jsonl"
    lines = part.read_bytes().splitlines(keepends=True)
    record = json.loads(lines[1])
    changed = lines[1].replace(record["prediction"].encode(), b"other words")
    part.write_bytes(lines[0] + changed)
    done = rdu_batch("audit", finished / "out", "--seed", "4")
    assert (done.returncode, last_json(done)["exit"]) == (7, 7)
    assert "row [0, 3]  part-00000-of-00001.jsonl:2  prediction" in done.stderr
    assert 'published  "other words"' in done.stderr
    assert f'now        "{record["prediction"][:60]}' in done.stderr
    assert "2 of 3 rows equal; seed 4" in done.stderr


def test_long_values_are_cut_to_where_they_differ():
    """The first character that differs is shown, with some before it."""
    there, here = "a" * 500 + "X" + "b" * 500, "a" * 500 + "Y" + "c" * 500
    cut_there, cut_here = _around(there, here)
    assert (cut_there[:33], cut_here[:33]) == ("..." + "a" * 30,) * 2
    assert (cut_there[33:35], cut_here[33:35]) == ("Xb", "Yc")
    assert cut_there.endswith("...")
    assert len(cut_there) < 120
    assert _around("same", "same and more") == ("same", "same and more")


def test_status_tells_by_its_exit_code_only_when_asked(finished, tmp_path):
    """0 only for a complete output; what was never run is 12, as what was stopped."""
    assert rdu_batch("status", finished / "out", "--exit-code").returncode == 0
    done = rdu_batch("status", tmp_path / "nothing", "--exit-code")
    assert (done.returncode, last_json(done)["exit"]) == (12, 12)
    assert rdu_batch("status", tmp_path / "nothing").returncode == 0


def test_status_watches_until_the_job_is_complete(finished):
    """From the store alone, in another process than the job's."""
    rows = [json.dumps({"text": f"[[fake:sleep 0.1]] {n}"}) for n in range(20)]
    (finished / "rows.jsonl").write_text("".join(f"{row}\n" for row in rows))
    url, job = finished / "watched", finished / "job.yaml"
    command = [sys.executable, "-m", "rdu_batch"]
    run = ["run", job, "--executor", "inline", "--set", f"output.url={url}"]
    job_run = subprocess.Popen(
        [*command, *map(str, run), "--set", "output.rows_per_shard=4"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    done = rdu_batch("status", url, "--watch", "--every", "1")
    assert job_run.wait() == 0
    assert (done.returncode, last_json(done)["state"]) == (0, "complete"), done.stderr
    assert "unfinished: " in done.stderr
    assert "complete: 20 of 20 rows durable (100.0%), 5 of 5 shards committed" in done.stderr
    assert done.stderr.splitlines()[-1] == "  shards  5 of 5 committed"
