"""Gc removes what no commit record names, and nothing that a resume, verify or a repair needs."""

import json
import signal
from pathlib import Path

import pytest

from rdu_batch.errors import OutputMismatch
from rdu_batch.runner.gc import choose_garbage, collect_garbage
from rdu_batch.runner.run_layout import sealed
from rdu_batch.runner.verify import verify_output
from rdu_batch.storage.store import open_store

CRASH_POINTS = Path(__file__).parent / "crash_points"


class Runs:
    """Runs of one job into an output of their own."""

    def __init__(self, job, folder):
        self.job = job
        self.folder = folder
        self.output = folder / "out"

    def run(self, env=None):
        return self.job.run("--executor", "inline", "--set", f"output.url={self.output}", env=env)

    def finish(self):
        done = self.run()
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.strip().splitlines()[-1])

    def run_and_kill(self, operation, name, occurrence):
        """SIGKILL right after the n-th operation on such a name."""
        folder = self.folder / f"marks-{len(list(self.folder.iterdir()))}"
        folder.mkdir()
        point = {"phase": "gc", "victim": "driver", "operation": operation, "name": name}
        point |= {"moment": "after", "occurrence": occurrence, "folder": str(folder)}
        env = {"CRASH_POINT": json.dumps(point), "PYTHONPATH": str(CRASH_POINTS)}
        done = self.run(env=env)
        assert (folder / "crashed").exists(), done.stderr
        assert done.returncode == -signal.SIGKILL


def files_under(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def gc(output, **how):
    return collect_garbage(open_store(str(output)), **how)


@pytest.fixture(scope="module")
def job(tmp_path_factory, job_folder_class, make_lines, troubled_lines):
    """Three shards, with dead letters in the first."""
    job = job_folder_class(tmp_path_factory.mktemp("gc"))
    return job.write([*troubled_lines, *make_lines(80)], rows_per_shard=40)


@pytest.fixture(scope="module")
def calm(job, published_bytes):
    """What an undisturbed run publishes."""
    assert job.run("--executor", "inline").returncode == 0
    return published_bytes(job.output)


@pytest.fixture
def runs(job, tmp_path):
    return Runs(job, tmp_path)


@pytest.fixture
def killed_twice(runs):
    """Shard 0 is committed, its segments are still there; shard 1 has segments only."""
    runs.run_and_kill("create_once", r"_run/commits/00000", 1)
    runs.run_and_kill("put_file", r"_run/segments/00001", 2)
    return runs


def test_gc_between_two_runs_leaves_all_that_the_second_needs(killed_twice, calm, published_bytes):
    """Segments of the committed shard go, those of the other stay; the bytes are the same."""
    before = files_under(killed_twice.output)
    garbage = [name for name in before if name.startswith("_run/segments/00000/")]
    needed = [name for name in before if name.startswith("_run/segments/00001/")]
    assert (len(garbage) > 0, len(needed)) == (True, 2)
    removed = gc(killed_twice.output)
    assert removed.objects == {"segments": len(garbage)}
    assert files_under(killed_twice.output) == sorted(set(before) - set(garbage))
    assert killed_twice.finish()["rows_resumed"] > 40  # the shard, and what was in the segments
    assert published_bytes(killed_twice.output) == calm


def test_a_committed_shard_that_was_not_published_is_published_after_gc(
    runs, calm, published_bytes
):
    """The sealed files that its record names were not garbage."""
    runs.run_and_kill("create_once", r"_run/commits/00000", 1)
    assert not list(runs.output.glob("part-*"))
    assert gc(runs.output).objects["segments"] > 0
    runs.finish()
    assert published_bytes(runs.output) == calm


def test_sealed_files_of_a_lost_attempt_go_and_nothing_else_changes(runs, published_bytes):
    """A worker was killed between sealing and committing: after the end its files are garbage."""
    runs.run_and_kill("put_file", r"_run/sealed/00000/dead", 1)
    assert gc(runs.output).objects == {}  # no record yet: not even looked at
    runs.finish()
    published, files = published_bytes(runs.output), files_under(runs.output)
    counted = gc(runs.output, dry_run=True)
    assert files_under(runs.output) == files
    removed = gc(runs.output)
    assert removed.to_json() == counted.to_json()
    assert removed.objects == {"sealed_unnamed": 2}
    assert len(files_under(runs.output)) == len(files) - 2
    assert gc(runs.output).objects == {}
    assert published_bytes(runs.output) == published
    assert verify_output(open_store(str(runs.output))).problems == []
    assert runs.finish()["state"] == "already complete"


def test_bytes_are_counted(runs):
    """What is reported is what the removed files had."""
    runs.run_and_kill("create_once", r"_run/commits/00000", 1)
    files = list((runs.output / "_run/segments/00000").iterdir())
    wanted = (len(files), sum(path.stat().st_size for path in files))
    document = gc(runs.output).to_json()
    assert (document["objects"], document["bytes"]) == wanted
    assert not any(path.exists() for path in files)


def test_sealed_copies_go_only_when_asked_and_only_beside_sound_files(runs):
    """A damaged part keeps its sealed copy, which then repairs it."""
    runs.finish()
    output = runs.output
    sealed_before = files_under(output / "_run/sealed")
    assert gc(output).objects == {}
    part = output / "part-00001-of-00003.jsonl"
    content = part.read_bytes()
    part.write_bytes(content.replace(b"row", b"raw", 1))
    removed = gc(output, remove_sealed=True)
    assert (removed.damaged, removed.exit) == ([part.name], 7)
    assert removed.objects == {"sealed": len(sealed_before) - 1}
    assert len(files_under(output / "_run/sealed")) == 1
    for name in (part.name, "manifest.json", "_SUCCESS"):
        (output / name).unlink()
    runs.finish()
    assert part.read_bytes() == content
    assert gc(output, remove_sealed=True).objects == {"sealed": 1}
    assert verify_output(open_store(str(output))).problems == []
    runs.finish()


def test_an_unfinished_output_keeps_its_sealed_files(killed_twice):
    """Asked for both, gc does neither and says why."""
    before = files_under(killed_twice.output)
    with pytest.raises(OutputMismatch, match="unfinished"):
        gc(killed_twice.output, remove_sealed=True)
    assert files_under(killed_twice.output) == before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("_run/plan.json", b'"version": 4', b'"version": 9'),
        ("_run/commits/00000.json", b'"version": 2', b'"version": 9'),
        ("_run/commits/00000.json", b'"plan_digest": "sha256:', b'"plan_digest": "sha256:0'),
    ],
)
def test_what_another_program_wrote_is_not_touched(killed_twice, name, old, new):
    """A newer plan or record, or one of another plan: exit 3 before anything is removed."""
    path = killed_twice.output / name
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))
    before = files_under(killed_twice.output)
    with pytest.raises(OutputMismatch):
        gc(killed_twice.output)
    assert files_under(killed_twice.output) == before


def test_a_folder_without_a_job_is_refused(tmp_path):
    """A wrong URL is not "nothing to remove"."""
    with pytest.raises(OutputMismatch, match=r"no _run/plan\.json"):
        gc(tmp_path)


def test_only_names_of_our_own_making_are_chosen():
    """Whatever else lies in these folders is left alone, and so is every uncommitted shard."""
    segment = f"_run/segments/00000/000000000000-000000000004-e000001-l000000-{'0' * 64}.seg"
    named, unnamed = sealed(0, "part", "a" * 16), sealed(0, "part", "b" * 16)
    others = ["_run/segments/00000/notes.txt", segment.replace("/00000/", "/00001/")]
    strangers = ["_run/sealed/00000/part-copy of a.jsonl", sealed(1, "part", "b" * 16)]
    doomed = choose_garbage(
        [(name, 1) for name in [segment, *others]],
        [(name, 2) for name in [named, unnamed, *strangers]],
        {0: frozenset([named])},
    )
    found = [(entry.kind, entry.name, entry.size_bytes) for entry in doomed]
    assert found == [("segments", segment, 1), ("sealed_unnamed", unnamed, 2)]
