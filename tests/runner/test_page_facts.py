"""The verb report on real outputs, against a count of their files made here."""

import json
import re
import signal
import subprocess
import time
from contextlib import contextmanager
from dataclasses import asdict

import pytest

from rdu_batch.runner import page_facts
from rdu_batch.runner.page_facts import read_page_facts
from rdu_batch.storage.store import open_store


def report(job, *arguments):
    return subprocess.run(
        job.command("report", job.output, "--out", job.folder / "page.html", *arguments),
        capture_output=True,
        text=True,
        check=False,
    )


def records(job, kind):
    files = sorted(job.output.glob(f"{kind}-*"))
    return [json.loads(line) for file in files for line in file.read_bytes().splitlines()]


def without_time(page):
    return re.sub(r"as of [-0-9]+ [:0-9]+ UTC", "as of then", page.read_text())


def test_the_page_of_a_finished_job_has_the_facts_of_its_files(
    job, troubled_lines, read_last_json, published_bytes
):
    """Lengths, dead letters and totals as counted from the files; the output is not changed."""
    assert job.write(troubled_lines, rows_per_shard=2).run("--executor", "inline").returncode == 0
    before = published_bytes(job.output)
    done = report(job, "--price-per-worker-hour", "2")
    assert done.returncode == 0, done.stderr
    assert read_last_json(done)["page"] == str(job.folder / "page.html")
    page = (job.folder / "page.html").read_text()
    facts = read_page_facts(open_store(str(job.output)))
    predictions, dead = records(job, "part"), records(job, "dead")
    assert list(facts.prompt_tokens) == [one["num_prompt_tokens"] for one in predictions]
    assert list(facts.generated_tokens) == [one["num_generated_tokens"] for one in predictions]
    assert facts.dead_samples.keys() == {one["reason"] for one in dead}
    assert facts.totals["dead"] == len(dead) > 0
    assert facts.num_damaged_parts == 0
    places = [one.place for found in facts.dead_samples.values() for one in found]
    assert f"{dead[1]['path']}, line {dead[1]['row'][1]}, id {dead[1]['id']}" in places
    assert all(reason in page for reason in facts.dead_samples)
    assert published_bytes(job.output) == before


@pytest.mark.parametrize("holds", [None, "other.txt"])
def test_a_place_without_a_job_has_no_page(job, read_last_json, holds):
    """It ends as verify does there, and a page of before stays."""
    page = job.folder / "page.html"
    page.write_text("of before")
    if holds:
        job.output.mkdir()
        (job.output / holds).write_text("")
    done = report(job)
    told = read_last_json(done)
    assert (done.returncode, told["exit"], told["error"]) == (7, 7, "VerifyFailed")
    assert str(job.output) in told["message"]
    assert "_run/plan.json" in told["message"]
    assert page.read_text() == "of before"


def test_a_job_without_rows_has_a_page(job):
    """With exit 0 and no row."""
    assert job.write([b""]).run("--executor", "inline").returncode == 0
    assert report(job).returncode == 0
    assert read_page_facts(open_store(str(job.output))).rows == 0


def test_a_sample_is_bounded_in_files_and_bytes(job, make_lines, monkeypatch):
    """Two files of six, spread; of each the line that crosses the limit is the last."""
    job.write(make_lines(12), rows_per_shard=2).run("--executor", "inline")
    monkeypatch.setattr(page_facts, "MAX_FILES", 2)
    monkeypatch.setattr(page_facts, "MAX_SAMPLE_BYTES", 1)
    facts = read_page_facts(open_store(str(job.output)))
    rows = records(job, "part")
    wanted = tuple(rows[at]["num_prompt_tokens"] for at in (0, 6))
    assert facts.prompt_tokens == wanted
    assert (facts.num_sampled_parts, facts.num_parts) == (2, 6)
    assert asdict(facts)["rows"] == 12


def test_a_damaged_part_is_counted_and_the_page_is_written(job, make_lines):
    """Half a line at the end of a part, JSON that is no prediction."""
    job.write(make_lines(3)).run("--executor", "inline")
    part = next(job.output.glob("part-*"))
    for content in (b'{"a": 1}\n', b"3\n", part.read_bytes()[:-20]):
        part.write_bytes(content)
        assert report(job).returncode == 0
        assert read_page_facts(open_store(str(job.output))).num_damaged_parts == 1
    assert "damaged" in (job.folder / "page.html").read_text()


def test_a_page_that_cannot_be_written_is_one_paragraph(job, make_lines, read_last_json):
    """The folder of --out is missing: the command line is wrong."""
    job.write(make_lines(1)).run("--executor", "inline")
    done = subprocess.run(
        job.command("report", job.output, "--out", job.folder / "no" / "page.html"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, read_last_json(done)["error"]) == (2, "UsageError")
    assert "choose another file with --out" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_leaves_its_page_in_the_run_folder(job, make_lines):
    """The page of the verb, made once: a run that finds the job complete leaves it alone."""
    page = job.output / "_run" / "report.html"
    assert job.write(make_lines(4)).run("--executor", "inline").returncode == 0
    assert report(job).returncode == 0
    assert without_time(page) == without_time(job.folder / "page.html")
    page.write_text("kept")
    assert job.run("--executor", "inline").returncode == 0
    assert page.read_text() == "kept"
    verified = job.command("verify", job.output)
    assert subprocess.run(verified, capture_output=True, check=False).returncode == 0


def test_a_run_that_gives_up_leaves_its_page(job, read_last_json):
    """It says why; after a signal, where time is short, there is none."""
    page = job.output / "_run" / "report.html"
    job.write([b"not JSON"] * 1500, rows_per_shard=100, limits={"max_dead_rows": 1})
    done = job.run("--executor", "inline")
    assert (done.returncode, read_last_json(done)["error"]) == (10, "StoppedEarly")
    shown = page.read_text()
    assert "1 StoppedEarly, exit 10" in shown
    assert "unfinished" in shown


def test_a_failed_run_s_page_that_cannot_be_written_changes_no_error(job, read_last_json):
    """It is said; the exit code is that of what went wrong."""
    job.write([b"not JSON"] * 1500, rows_per_shard=100, limits={"max_dead_rows": 1})
    (job.output / "_run" / "report.html").mkdir(parents=True)
    done = job.run("--executor", "inline")
    assert (done.returncode, read_last_json(done)["error"]) == (10, "StoppedEarly")
    assert "_run/report.html was not written" in done.stderr


def test_a_page_that_cannot_be_written_does_not_fail_the_job(job, make_lines):
    """It is said, with the verb that makes it; the exit code stays 0."""
    job.write(make_lines(4))
    (job.output / "_run" / "report.html").mkdir(parents=True)
    done = job.run("--executor", "inline")
    assert done.returncode == 0
    assert "_run/report.html was not written" in done.stderr
    assert f"`rdu-batch report {job.output}` makes the page" in done.stderr


@contextmanager
def stopped_midway(job, kind):
    """A job of many rows whose run got this signal when it had finished a shard."""
    slow = {"input": {"urls": [f"{job.folder}/rows.jsonl"]}, "generation": {"max_new_tokens": 400}}
    lines = [b'{"text": "%d %s"}' % (n, b"word " * 20) for n in range(20_000)]
    job.write([*lines[:5], b"not JSON", *lines], rows_per_shard=100, **slow)
    running = subprocess.Popen(
        job.command("run", job.path, "--executor", "inline"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline_s = time.monotonic() + 60
        while not list(job.output.glob("_run/commits/*.json")):
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        running.send_signal(kind)
        running.wait(timeout=60)
        yield read_page_facts(open_store(str(job.output)), lambda: 1795905000.0)
    finally:
        running.kill()
        running.wait()


def test_an_unfinished_job_shows_what_its_finished_parts_hold(job):
    """Lengths and dead letters of the first shard; and the run that was stopped, with its times."""
    with stopped_midway(job, signal.SIGTERM) as facts:
        assert facts.state == "unfinished"
        assert facts.looked_s == 1795905000.0
        assert facts.num_parts == facts.shards_committed > 0
        assert facts.num_sampled_rows > 0
        assert len(facts.generated_tokens) == facts.num_sampled_rows
        (place,) = [one.place for one in facts.dead_samples["not_json"]]
        assert place.endswith("rows.jsonl, line 6")
        (run,) = facts.epochs
    assert not (job.output / "_run" / "report.html").exists()
    assert (run["exit"], run["error"], run["workers"]) == (12, "Interrupted", 1)
    assert 0 < run["wall_s"] <= run["ended_s"] - run["began_s"] + 0.1
    assert run["tokens_per_s"] > 0
    assert abs(run["ended_s"] - time.time()) < 600


def test_a_run_that_was_killed_is_among_the_runs(job):
    """It left no result; its machine knows, others see that a later run took over."""
    with stopped_midway(job, signal.SIGKILL) as facts:
        assert facts.epochs == ({"state": "killed", "epoch": 1},)
    owner = job.output / "_run" / "drivers" / "000001.json"
    told = json.loads(owner.read_text())
    owner.write_text(json.dumps({**told, "process": None}))
    (run,) = read_page_facts(open_store(str(job.output))).epochs
    assert run["state"].startswith("no result yet")
    (owner.parent / "000002.json").write_text(json.dumps({**told, "epoch": 2}))
    states = [one["state"] for one in read_page_facts(open_store(str(job.output))).epochs]
    assert states == ["killed or cut off", "killed"]
