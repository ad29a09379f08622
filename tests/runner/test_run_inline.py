"""A whole job in one process: what it writes, how it ends, what it refuses."""

import json

import pytest


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_row_is_a_prediction_or_a_dead_letter(job, troubled_lines, read_last_json):
    """Rows that cannot be predicted are set aside with their reason; the job goes on."""
    done = job.write(troubled_lines, rows_per_shard=100).run("--executor", "inline")
    summary = read_last_json(done)
    assert done.returncode == 0, done.stderr
    assert (summary["rows"], summary["predictions"], summary["dead"]) == (6, 2, 4)
    dead = lines_of(job.output / "dead-00000-of-00001.jsonl")
    assert [(d["row"], d["id"], d["reason"]) for d in dead] == [
        ([0, 3], None, "not_json"),
        ([0, 4], "b", "missing_field"),
        ([0, 5], "c", "wrong_type"),
        ([0, 6], "d", "prompt_too_long"),
    ]
    parts = lines_of(job.output / "part-00000-of-00001.jsonl")
    assert [(p["row"], p["id"]) for p in parts] == [([0, 1], "a"), ([0, 7], "e")]
    assert '"label":1.50' in (job.output / "part-00000-of-00001.jsonl").read_text()


@pytest.mark.parametrize(("allowed", "exit_code"), [("100%", 0), (4, 0), (3, 5), ("0.1%", 5)])
def test_max_dead_rows_decides_between_exit_0_and_5(
    job, troubled_lines, read_last_json, allowed, exit_code
):
    """The job is complete either way; the exit code says whether that is good enough."""
    job.write(troubled_lines, limits={"max_dead_rows": allowed})
    done = job.run("--executor", "inline")
    assert (done.returncode, read_last_json(done)["exit"]) == (exit_code, exit_code)
    assert ("limits.max_dead_rows" in done.stderr) == (exit_code == 5)
    assert (job.output / "_SUCCESS").exists()


def test_a_finished_job_is_a_no_op(job, make_lines, read_last_json, published_bytes):
    """The same command again changes nothing and exits 0."""
    job.write(make_lines(20)).run("--executor", "inline")
    before = published_bytes(job.output)
    done = job.run("--executor", "inline")
    summary = read_last_json(done)
    assert (done.returncode, summary["state"], summary["rows"]) == (0, "already complete", 20)
    assert published_bytes(job.output) == before


def test_a_changed_job_on_the_same_output_is_refused_with_the_differences(job, make_lines):
    """Exit 3, finished or not; what differs is named."""
    job.write(make_lines(20)).run("--executor", "inline")
    done = job.run("--executor", "inline", "--set", "generation.max_new_tokens=21")
    assert done.returncode == 3
    assert "generation.max_new_tokens: 20 -> 21" in done.stderr
    (job.output / "_SUCCESS").unlink()
    assert job.run("--executor", "inline", "--set", "prompt.field=id").returncode == 3


def test_files_that_came_after_the_plan_are_a_note_and_no_part_of_the_job(
    job, make_lines, read_last_json
):
    """Whoever goes on with a day must learn that more of it has come; a limit asks for no more."""
    job.write(make_lines(20), input={"urls": [f"{job.folder}/*.jsonl"]})
    stopped = job.run("--executor", "inline", "--set", "limits.deadline_s=0.0001")
    assert stopped.returncode == 12
    done = job.run("--executor", "inline")
    assert "files now" not in done.stderr
    (job.output / "_SUCCESS").unlink()
    (job.folder / "late.jsonl").write_text('{"text": "late"}\n')
    done = job.run("--executor", "inline")
    assert (done.returncode, read_last_json(done)["rows"]) == (0, 20)
    assert "input.urls means 2 files now, and 1 when this job was planned" in done.stderr


def test_name_limits_and_workers_may_change_between_runs(job, make_lines):
    """They do not decide the bytes, so the job is the same."""
    job.write(make_lines(20)).run("--executor", "inline")
    changes = ["name=other", "limits.row_timeout_s=5", "workers.count=3"]
    sets = [word for change in changes for word in ("--set", change)]
    assert job.run("--executor", "inline", *sets).returncode == 0


def test_limit_runs_the_first_rows_only(job, make_lines, read_last_json):
    """--limit is part of the job: it decides the bytes."""
    done = job.write(make_lines(20)).run("--executor", "inline", "--limit", "9")
    assert read_last_json(done)["rows"] == 9
    assert job.run("--executor", "inline").returncode == 3


def test_an_input_without_rows_gives_one_empty_part(job, read_last_json):
    """A consumer's glob finds a file; the job is complete."""
    done = job.write([b"", b"  "]).run("--executor", "inline")
    assert (done.returncode, read_last_json(done)["rows"]) == (0, 0)
    assert (job.output / "part-00000-of-00001.jsonl").read_bytes() == b""
    assert (job.output / "_SUCCESS").exists()


def test_the_manifest_adds_up_and_names_no_place_or_time(job, troubled_lines):
    """Totals equal the parts; nothing in it depends on where or when the job ran."""
    job.write(troubled_lines, rows_per_shard=2).run("--executor", "inline")
    text = (job.output / "manifest.json").read_text()
    manifest = json.loads(text)
    parts = manifest["parts"]
    assert manifest["totals"]["predictions"] == sum(part["rows"] for part in parts)
    assert manifest["totals"]["dead"] == sum(part["dead"]["rows"] for part in parts if part["dead"])
    assert manifest["inputs"][0]["path"] == "rows.jsonl"
    assert str(job.folder) not in text


def test_an_input_that_changed_since_the_plan_is_exit_4(job, make_lines):
    """An unfinished job meets another file under the pinned name: nothing is mixed."""
    job.write(make_lines(20)).run("--executor", "inline")
    for name in ("_SUCCESS", "manifest.json"):
        (job.output / name).unlink()
    for commit in (job.output / "_run/commits").iterdir():
        commit.unlink()
    for segment in (job.output / "_run/segments").rglob("*.seg"):
        segment.unlink()
    rows = (job.folder / "rows.jsonl").read_bytes()
    (job.folder / "rows.jsonl").write_bytes(rows.replace(b"row 3", b"row 4"))
    done = job.run("--executor", "inline")
    assert done.returncode == 4
    assert "rows.jsonl" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_row_that_makes_the_session_raise_is_isolated(job, make_lines, read_last_json):
    """Not only deaths: an exception inside a row ends as that row's dead letter, inline too."""
    lines = make_lines(5)
    lines[2] = b'{"id": "x", "text": "[[fake:broken]]"}'
    done = job.write(lines).run("--executor", "inline")
    assert done.returncode == 0, done.stderr
    summary = read_last_json(done)
    assert (summary["predictions"], summary["dead_reasons"]) == (4, {"session_killed": 1})


def test_a_template_that_needs_more_memory_than_there_is_costs_its_row_only(job, read_last_json):
    """An error that nobody foresaw is a suspect row, not the end of the job."""
    lines = [b'{"text": "a", "n": 1}', b'{"text": "a", "n": 99999999999999}', b"not JSON"]
    prompt = {"template": "{{ row.text * row.n }}"}
    done = job.write(lines, prompt=prompt).run("--executor", "inline")
    assert done.returncode == 0, done.stderr
    assert read_last_json(done)["dead"] == 2


def test_an_id_is_taken_only_from_the_named_field(job):
    """Without id_field a dead letter has none, whatever keys the row has."""
    job.write([b'{"": 5}'], input={"urls": [f"{job.folder}/rows.jsonl"]})
    job.run("--executor", "inline")
    assert lines_of(job.output / "dead-00000-of-00001.jsonl")[0]["id"] is None


def test_a_lost_manifest_is_written_again(job, make_lines, published_bytes):
    """The commit records are enough."""
    job.write(make_lines(10)).run("--executor", "inline")
    before = published_bytes(job.output)
    (job.output / "manifest.json").unlink()
    assert job.run("--executor", "inline").returncode == 0
    assert published_bytes(job.output) == before


def test_segments_of_a_committed_shard_are_gone(job, make_lines):
    """A resume lists what is left, so that must not grow with the job."""
    job.write(make_lines(20), rows_per_shard=10).run("--executor", "inline")
    assert list(job.output.glob("_run/segments/*/*.seg")) == []


def test_the_parts_do_not_depend_on_how_rows_are_leased(make_job, make_lines, published_bytes):
    """One shard a row, or one shard for all: the predictions are the same, row by row."""
    texts = []
    for rows_per_shard in (1, 4, 100):
        job = make_job(f"by-{rows_per_shard}").write(make_lines(10), rows_per_shard=rows_per_shard)
        assert job.run("--executor", "inline").returncode == 0
        parts = sorted(job.output.glob("part-*"))
        texts.append(b"".join(part.read_bytes() for part in parts))
    assert texts[0] == texts[1] == texts[2]
    assert texts[0].count(b"\n") == 10


def test_sampling_is_seeded_by_the_row_alone(make_job, make_lines, published_bytes):
    """The same seed gives the same parts in any sharding; another seed gives others."""

    def parts(name, seed, rows_per_shard):
        generation = {"max_new_tokens": 20, "temperature": 1.0, "seed": seed}
        job = make_job(name)
        job.write(make_lines(6), rows_per_shard=rows_per_shard, generation=generation)
        done = job.run("--executor", "inline")
        assert done.returncode == 0, done.stderr
        return b"".join(part.read_bytes() for part in sorted(job.output.glob("part-*")))

    found = parts("two", 7, 6)
    assert found == parts("one", 7, 2)
    assert found != parts("three", 8, 6)
