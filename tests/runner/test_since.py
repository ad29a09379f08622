"""A run with ``input.since``: what an earlier output holds is taken over, only new rows are run."""

import contextlib
import json
import random
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdu_batch.cli.main import run as run_verb
from rdu_batch.errors import InputError, OutputMismatch, StoreError, UsageError, VerifyFailed
from rdu_batch.job.plan import InputFile, Shard
from rdu_batch.job.spec import JobSpec
from rdu_batch.report.progress import Silent
from rdu_batch.runner.parent_rows import ParentRows
from rdu_batch.runner.retry_dead import retry_dead_letters
from rdu_batch.runner.row_run import RowRunner
from rdu_batch.runner.run_job import run_job
from rdu_batch.runner.unchanged import cut_to, gaps, same_rows
from rdu_batch.runner.verify import verify_output
from rdu_batch.storage.local_store import LocalStore
from rdu_batch.storage.store import open_store

SAMPLED = {"temperature": 1.0, "seed": 3}


def line(name, number):
    return json.dumps({"id": f"{name}{number}", "text": f"text {number} of {name}", "n": number})


def lines_of(name, count):
    """Rows of which one is dead for good."""
    return [line(name, number) if number != 4 else "not JSON" for number in range(count)]


class Corpus:
    """A folder of inputs that grows, and the outputs made of it."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "in").mkdir()
        self.ran = []

    def put(self, name, lines):
        (self.folder / "in" / name).write_text("".join(f"{one}\n" for one in lines))

    def spec(self, output, *, since=None, limit=None, rows_per_shard=5, packed="jsonl", **more):
        return JobSpec.model_validate(
            {
                "version": 1,
                "name": "nightly",
                "input": {
                    "urls": (f"{self.folder}/in",),
                    "id_field": "id",
                    "carry": ("n",),
                    "limit": limit,
                    "since": since and str(self.folder / since),
                },
                "prompt": {"field": "text"},
                "session": {"kind": "fake"},
                "generation": {"max_new_tokens": 8, **more},
                "output": {
                    "url": str(self.folder / output),
                    "rows_per_shard": rows_per_shard,
                    "format": packed,
                },
                "limits": {"max_dead_rows": "100%"},
            }
        )

    def run(self, output, **words):
        self.ran.clear()
        return run_job(self.spec(output, **words), executor="inline", progress=Silent())

    def published(self, output):
        return {
            path.name: path.read_bytes()
            for path in (self.folder / output).iterdir()
            if path.name.startswith(("part-", "dead-"))
        }

    def grow(self):
        """What a day brings: a file before all others, rows at an end, in between, and moved."""
        self.put("0.jsonl", lines_of("z", 3))
        b = lines_of("b", 7)
        self.put("b.jsonl", [*b[:2], line("new", 0), *b[2:], line("new", 1)])
        (self.folder / "in" / "c.jsonl").rename(self.folder / "in" / "moved.jsonl")


#: Content of the rows that ``grow`` brings; a dead letter is no prediction to take over.
NEW = [*lines_of("z", 3), line("new", 0), "not JSON", line("new", 1)]


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    corpus = Corpus(tmp_path)
    corpus.put("a.jsonl", lines_of("a", 12))
    corpus.put("b.jsonl", lines_of("b", 7))
    corpus.put("c.jsonl", lines_of("c", 4))
    run_row = RowRunner.run

    def noting(self, row, clock):
        corpus.ran.append(row.line_bytes.decode())
        return run_row(self, row, clock)

    monkeypatch.setattr(RowRunner, "run", noting)
    return corpus


@pytest.mark.parametrize("packed", ["jsonl", "parquet"])
def test_only_what_is_new_is_run_and_the_output_is_that_of_a_whole_run(corpus, packed):
    """Files that moved in order, rows that moved in a file: each has its prediction where it is."""
    corpus.run("day1", packed=packed)
    corpus.grow()
    summary = corpus.run("day2", since="day1", packed=packed)
    assert sorted(corpus.ran) == sorted(NEW)
    reused = summary.reused
    assert (reused.unchanged_files, reused.rows_of_unchanged_files) == (1, 12)
    assert reused.rows_of_same_content == 6 + 4
    assert (summary.rows, summary.rows_resumed) == (12 + 9 + 4 + 3, 0)
    assert "12 rows of 1 unchanged file, 10 rows with the content" in summary.to_text()
    assert "; 6 are new since" in summary.to_text()
    assert summary.to_json()["reused"]["since"] == str(corpus.folder / "day1")
    corpus.run("whole", packed=packed)
    assert len(corpus.ran) == summary.rows
    assert corpus.published("day2") == corpus.published("whole")
    assert verify_output(open_store(str(corpus.folder / "day2"))).problems == []
    manifest = json.loads((corpus.folder / "day2" / "manifest.json").read_text())
    assert manifest["parent"] == {"manifest_sha256": reused.parent_manifest_sha256}


def test_nights_follow_each_other(corpus):
    """What was taken over is taken over again; another format and other shards are no obstacle."""
    corpus.run("day1")
    corpus.grow()
    corpus.run("day2", since="day1", rows_per_shard=3, packed="jsonl.gz")
    corpus.put("d.jsonl", [line("d", 0), line("b", 6), *lines_of("a", 1)])
    summary = corpus.run("day3", since="day2", rows_per_shard=4)
    assert corpus.ran == [line("d", 0)]
    assert summary.reused.rows_of_same_content == 2
    again = corpus.run("day4", since="day3", rows_per_shard=4)
    assert corpus.ran == []
    assert (again.reused.num_rows, again.reused.unchanged_files) == (again.rows, 5)
    assert corpus.published("day4") == corpus.published("day3")
    corpus.run("whole", rows_per_shard=4)
    assert corpus.published("day4") == corpus.published("whole")


def test_shards_with_the_very_same_rows_are_copied(corpus, monkeypatch):
    """Where a corpus grows at its end, the rows before are not even read."""
    corpus.run("day1")
    corpus.put("d.jsonl", lines_of("d", 6))
    read = []
    real = ParentRows.read
    monkeypatch.setattr(
        ParentRows, "read", lambda self, *rows: read.append(rows) or real(self, *rows)
    )
    corpus.run("day2", since="day1")
    assert read == [(20, 3)]  # of the one shard that was not full
    assert sorted(corpus.ran) == sorted(lines_of("d", 6))
    for number in range(4):
        old, new = (
            json.loads((corpus.folder / day / f"_run/commits/{number:05d}.json").read_text())
            for day in ("day1", "day2")
        )
        assert old["part"]["sha256"] == new["part"]["sha256"]
        assert old["row_digests"] == new["row_digests"]


def test_of_sampled_rows_only_whole_files_are_taken_over(corpus):
    """A row's seed is that of its place, so its content alone says nothing."""
    corpus.run("day1", **SAMPLED)
    corpus.grow()
    summary = corpus.run("day2", since="day1", **SAMPLED)
    assert summary.reused.num_rows == 12
    assert not summary.reused.looked_for_content
    assert "no single rows" in summary.to_text()
    assert len(corpus.ran) == summary.rows - 12
    corpus.run("whole", **SAMPLED)
    assert corpus.published("day2") == corpus.published("whole")


def test_a_row_that_asks_to_be_sampled_is_not_known_by_its_content(corpus):
    """Of a greedy job: the row's own settings count."""
    row = json.dumps({"id": 1, "text": "x", "settings": {"temperature": 1.0}})
    generation = {"overrides_field": "settings"}
    corpus.put("a.jsonl", [row, line("a", 1)])
    corpus.run("day1", **generation)
    corpus.put("a.jsonl", [line("new", 1), row, line("a", 1)])
    corpus.run("day2", since="day1", **generation)
    assert corpus.ran == [line("new", 1), row]


def test_of_a_limited_parent_as_many_rows_are_there(corpus):
    """Its last file is known in part."""
    corpus.run("day1", limit=8)
    summary = corpus.run("day2", since="day1")
    assert summary.reused.num_rows == 8
    corpus.run("whole")
    assert corpus.published("day2") == corpus.published("whole")


def test_a_run_that_breaks_at_any_write_goes_on_to_the_same_bytes(corpus, monkeypatch):
    """Each put of the whole run fails once; the rerun never runs what was taken over."""
    corpus.run("day1")
    corpus.grow()
    corpus.run("calm", since="day1")
    wanted = {**corpus.published("calm"), "manifest": _manifest(corpus, "calm")}
    for name in ("put_file", "put_whole"):
        for number in range(1, 100):
            with monkeypatch.context() as patch:
                calls = _fail_at(patch, name, number)
                with contextlib.suppress(StoreError):
                    corpus.run("day2", since="day1")
            if len(calls) < number:
                break
            summary = corpus.run("day2", since="day1")
            assert set(corpus.ran) <= set(NEW)
            assert summary.reused.num_rows == 22
            found = {**corpus.published("day2"), "manifest": _manifest(corpus, "day2")}
            assert found == wanted, (name, number)
            shutil.rmtree(corpus.folder / "day2")
        assert number > 4
        shutil.rmtree(corpus.folder / "day2", ignore_errors=True)


def _manifest(corpus, output):
    return (corpus.folder / output / "manifest.json").read_bytes()


def _fail_at(patch, name, number):
    calls = []
    real = getattr(LocalStore, name)

    def failing(self, *arguments):
        calls.append(arguments)
        if len(calls) == number:
            raise StoreError("no more")
        return real(self, *arguments)

    patch.setattr(LocalStore, name, failing)
    return calls


def test_an_output_goes_on_with_the_parent_that_began_it_only(corpus, monkeypatch):
    """Exit 3: without input.since, and with another one."""
    corpus.run("day1")
    corpus.run("other", limit=3)
    with monkeypatch.context() as patch:
        _fail_at(patch, "put_file", 3)
        with pytest.raises(StoreError):
            corpus.run("day2", since="day1")
    with pytest.raises(OutputMismatch, match=r"began with what is unchanged since another output"):
        corpus.run("day2")
    with pytest.raises(OutputMismatch, match=r"this command would begin it with what is unchanged"):
        corpus.run("day2", since="other")
    assert corpus.run("day2", since="day1").exit == 0
    # A finished output asks for nothing more.
    shutil.rmtree(corpus.folder / "day1")
    done = corpus.run("day2", since="day1")
    assert (done.state, done.reused.num_rows) == ("already complete", 23)


def test_a_parent_that_does_not_fit_is_refused(corpus):
    """With what to do; nothing is written."""
    with pytest.raises(InputError, match=r"no finished output.*--set input\.since=null"):
        corpus.run("day2", since="nowhere")
    with pytest.raises(UsageError, match="own output"):
        corpus.run("day2", since="day2")
    corpus.run("day1")
    with pytest.raises(OutputMismatch, match=r"generation\.max_new_tokens: 8 -> 9"):
        corpus.run("day2", since="day1", max_new_tokens=9)
    assert not (corpus.folder / "day2").exists()
    (corpus.folder / "day1" / "_run" / "plan.json").unlink()
    with pytest.raises(OutputMismatch, match="needs its plan"):
        corpus.run("day2", since="day1")


@pytest.mark.parametrize("damaged", ["part-00001-of-00005.jsonl", "_run/row_digests/00000-*"])
def test_nothing_of_a_damaged_parent_is_handed_on(corpus, damaged):
    """Exit 7, which names the file."""
    corpus.run("day1")
    corpus.grow()
    (path,) = (corpus.folder / "day1").glob(damaged)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(VerifyFailed, match=path.name):
        corpus.run("day2", since="day1")


def test_dead_letters_of_such_an_output_can_be_run_again(corpus):
    """Its plan names its own parent, that of the retry names it."""
    corpus.run("day1")
    corpus.grow()
    corpus.run("day2", since="day1")
    summary = retry_dead_letters(
        corpus.spec("x", since="day1"),
        parent=str(corpus.folder / "day2"),
        into=str(corpus.folder / "again"),
        executor="inline",
        progress=Silent(),
    )
    assert (summary.exit, summary.rows, summary.reused) == (0, 28, None)
    assert corpus.published("again") == corpus.published("day2")
    corpus.put("0.jsonl", [])
    assert corpus.run("day3", since="again").reused.num_rows == 25


def test_the_command_line_tells_what_was_reused(corpus, tmp_path, capsys):
    """And the day before is a word of the job file."""
    corpus.run("2026-11-21")
    corpus.put("d.jsonl", lines_of("d", 2))
    leaves = corpus.spec("{date}").model_dump(mode="json", exclude_none=True)
    leaves["input"]["since"] = f"{tmp_path}/{{yesterday}}"
    job = tmp_path / "job.json"
    job.write_text(json.dumps(leaves))
    assert run_verb(["run", str(job), "--date", "2026-11-22", "--executor", "inline"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out.splitlines()[-1])["reused"]["rows_of_unchanged_files"] == 23
    assert "23 rows of 3 unchanged files" in said.out + said.err
    assert (tmp_path / "2026-11-22" / "_SUCCESS").exists()


def test_the_plan_says_what_will_be_reused_and_predicts_the_rest(corpus, tmp_path, capsys):
    """Whole files; nothing is written."""
    corpus.run("day1")
    corpus.put("d.jsonl", lines_of("d", 2))
    job = tmp_path / "job.json"
    leaves = corpus.spec("day2", since="day1").model_dump(mode="json", exclude_none=True)
    job.write_text(json.dumps(leaves))
    assert run_verb(["plan", str(job)]) == 0
    said = capsys.readouterr()
    summary = json.loads(said.out.splitlines()[-1])
    assert summary["reused"] == {
        "since": str(tmp_path / "day1"),
        "unchanged_files": 3,
        "rows_of_unchanged_files": 23,
    }
    assert "23 rows of 3 unchanged files" in said.err
    # From the two new rows alone, which are all sound; among those taken over are dead ones.
    predicted = summary["prediction"]
    assert (predicted["sampled_rows"], predicted["sampled_dead_rows"]) == (2, 0)
    assert 0 < summary["prediction"]["generated_tokens"][1] <= 2 * 8
    assert not (tmp_path / "day2").exists()


def file_of(index, name, content, num_rows):
    return InputFile(index, name, name, "jsonl", 1, None, 1, content, num_rows, num_rows, ())


FILES = st.dictionaries(
    st.sampled_from("abcdef"), st.tuples(st.sampled_from("xyz"), st.integers(0, 9)), max_size=6
)


@given(new=FILES, old=FILES, cut=st.integers(0, 60), cut_before=st.integers(0, 60))
def test_same_rows_are_those_of_the_same_place_in_the_same_file(new, old, cut, cut_before):
    """Against a row by row comparison; shards and their gaps hold each row once."""

    def rows_of(files, most):
        found = [
            (name, content, count, line)
            for name, (content, count) in files.items()
            for line in range(count)
        ]
        return found[:most]

    def listed(files):
        return [file_of(i, name, *of) for i, (name, of) in enumerate(files.items())]

    here, there = rows_of(new, cut), rows_of(old, cut_before)
    same = same_rows(listed(new), len(here), listed(old), len(there))
    pairs = {
        one.first_row + k: one.first_row_before + k
        for one in same
        for k in range(one.end_row - one.first_row)
    }
    assert pairs == {row: there.index(of) for row, of in enumerate(here) if of in there}
    size = random.Random(cut).randint(1, 7)
    for first in range(0, len(here), size):
        shard = Shard(first // size, first, min(first + size, len(here)))
        cut_same = cut_to(same, shard)
        rows = [r for one in cut_same for r in range(one.first_row, one.end_row)]
        rows += [r for a, b in gaps(cut_same, shard) for r in range(a, b)]
        assert sorted(rows) == list(range(shard.first_row, shard.end_row))
        assert all(
            pairs[one.first_row + k] == one.first_row_before + k
            for one in cut_same
            for k in range(one.end_row - one.first_row)
        )
