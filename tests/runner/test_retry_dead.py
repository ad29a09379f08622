"""Dead letters run again into a new output: what is retried, what is kept, who may go on with it.

The parent ran on Ray with a row limit that its slow rows exceed; nothing watches a row's time under
the inline executor, so an undisturbed inline run says what a retry with time enough must come to.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdu_batch.errors import OutputMismatch
from rdu_batch.job.plan import Shard
from rdu_batch.job.records import Fields, Row, Sample, dead_line, prediction_line
from rdu_batch.runner.kept_rows import is_kept, kept_segments, read_shard
from rdu_batch.runner.outcomes import Outcome
from rdu_batch.runner.published import outcome_of
from rdu_batch.runner.retry_seed import open_parent
from rdu_batch.storage.store import open_store

CRASH_POINTS = Path(__file__).parent / "crash_points"
INLINE = ("--executor", "inline")
ON_RAY = ("--address", "local", "--set", "workers.count=2")
TIMEOUTS = ("--reason", "row_timeout")


def tree(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def rows_of(output):
    """Names and bytes of all parts and dead letter files."""
    return {path.name: path.read_bytes() for path in output.iterdir() if path.suffix == ".jsonl"}


def run(job, verb, *arguments, env=None):
    return subprocess.run(
        job.command(verb, *arguments), capture_output=True, text=True, check=False, env=env
    )


def armed(point):
    """The environment of a process that is killed at this point."""
    return {**os.environ, "CRASH_POINT": json.dumps(point), "PYTHONPATH": str(CRASH_POINTS)}


def summary_of(done, exit_code=0):
    assert done.returncode == exit_code, done.stderr
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def job(tmp_path_factory, job_folder_class, make_lines, troubled_lines):
    """Six shards: slow rows in two of them, one of which has no other row; other trouble in two."""
    slow = [
        json.dumps({"id": f"s{n}", "text": f"[[fake:sleep 1.2]] {n}", "label": n}).encode()
        for n in range(3)
    ]
    sound = make_lines(24)
    troubled = [line for line in troubled_lines if line]
    lines = [
        *(slow[0], *sound[:2], slow[1], sound[2]),
        *sound[3:8],
        *sound[8:13],
        *(*troubled, b'{"id": "k", "text": "[[fake:broken]]"}', *sound[13:16]),
        slow[2],
    ]
    job = job_folder_class(tmp_path_factory.mktemp("retried"))
    limits = {"max_dead_rows": "100%", "row_timeout_s": 0.3, "attempts_per_row": 1}
    return job.write(lines, rows_per_shard=5, limits=limits)


@pytest.fixture(scope="module")
def calm(job, tmp_path_factory):
    """The same job where no row is too slow."""
    output = tmp_path_factory.mktemp("calm") / "out"
    summary_of(run(job, "run", job.path, *INLINE, "--set", f"output.url={output}"))
    return output


@pytest.fixture(scope="module")
def parent(job):
    """A finished output with dead letters of several reasons; no test may change it."""
    summary = summary_of(job.run("--address", "local", "--set", "workers.count=2"))
    assert summary["dead_reasons"].pop("row_timeout") == 3
    assert summary["dead_reasons"] == {
        **dict.fromkeys(["missing_field", "not_json", "prompt_too_long"], 1),
        **dict.fromkeys(["session_killed", "wrong_type"], 1),
    }
    return job.output


@pytest.fixture
def retry(job, parent, tmp_path):
    """``rdu-batch retry-dead`` of that parent into ``tmp_path/new``."""

    def retry(*arguments, of=parent, into=tmp_path / "new", how=INLINE, env=None):
        return run(job, "retry-dead", of, job.path, "--into", into, *how, *arguments, env=env)

    return retry


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("how", [INLINE, pytest.param(ON_RAY, marks=pytest.mark.all_only)])
def test_a_retry_with_time_enough_is_the_run_that_had_it(retry, job, parent, calm, tmp_path, how):
    """Every row's line is that of the undisturbed run; the parent is only read."""
    before = tree(parent)
    new = tmp_path / "new"
    summary = summary_of(retry(*TIMEOUTS, "--set", "limits.row_timeout_s=60", how=how))
    assert (summary["rows"], summary["rows_resumed"], summary["dead"]) == (26, 23, 5)
    assert rows_of(new) == rows_of(calm)
    assert tree(parent) == before
    assert summary_of(run(job, "verify", new))["problems"] == []
    ours, theirs = (json.loads((path / "manifest.json").read_text()) for path in (new, calm))
    assert ours.pop("parent") == {
        "manifest_sha256": hashlib.sha256((parent / "manifest.json").read_bytes()).hexdigest(),
        "reasons": ["row_timeout"],
    }
    assert ours == theirs
    assert str(parent) not in (new / "manifest.json").read_text()


@pytest.mark.ray
@pytest.mark.slow
def test_untouched_shards_are_copied_and_kept_rows_keep_their_lines(retry, parent, tmp_path):
    """Shard by shard and line by line, against the parent's own bytes; so is the canary."""
    summary_of(retry(*TIMEOUTS))
    old, new = rows_of(parent), rows_of(tmp_path / "new")
    touched = {0, 5}
    for name, content in old.items():
        if int(name.split("-")[1]) not in touched:
            assert new[name] == content
    kept = [line for content in old.values() for line in content.splitlines(keepends=True)]
    kept = [line for line in kept if b'"reason":"row_timeout"' not in line]
    lines = [line for content in new.values() for line in content.splitlines(keepends=True)]
    assert set(kept) < set(lines)
    assert len(lines) == len(kept) + 3 == 26
    canary = "_run/canary.json"
    assert (tmp_path / "new" / canary).read_bytes() == (parent / canary).read_bytes()


@pytest.mark.ray
@pytest.mark.slow
def test_all_reasons_are_retried_unless_some_are_named(retry, calm, tmp_path):
    """What is dead for good is dead again, with the same line."""
    summary = summary_of(retry())
    assert summary["rows_resumed"] == 26 - 8
    assert rows_of(tmp_path / "new") == rows_of(calm)
    manifest = json.loads((tmp_path / "new/manifest.json").read_text())
    assert manifest["parent"]["reasons"] == [
        *("missing_field", "not_json", "prompt_too_long", "row_timeout", "session_killed"),
        "wrong_type",
    ]


@pytest.mark.ray
@pytest.mark.slow
def test_a_retry_can_be_retried(retry, job, parent, calm, tmp_path):
    """The second one's parent is the first; a reason that no row has retries nothing."""
    first, second = tmp_path / "first", tmp_path / "second"
    summary = summary_of(retry("--reason", "not_json", into=first))
    assert (summary["rows_resumed"], summary["dead_reasons"]["row_timeout"]) == (25, 3)
    assert rows_of(first) == rows_of(parent)
    summary = summary_of(retry(*TIMEOUTS, "--reason", "too_deep", of=first, into=second))
    assert rows_of(second) == rows_of(calm)
    manifest = json.loads((second / "manifest.json").read_text())
    digest = hashlib.sha256((first / "manifest.json").read_bytes()).hexdigest()
    assert manifest["parent"] == {"manifest_sha256": digest, "reasons": ["row_timeout"]}
    assert summary_of(run(job, "verify", second))["problems"] == []
    assert summary_of(run(job, "gc", second))["objects"] == 0
    audited = summary_of(run(job, "audit", second, "--sample", "26"))
    assert (audited["equal"], audited["not_audited"]) == (25, {"session_killed": 1})


#: Operation and name of the object at which a retry is killed, before and after it.
POINTS = [
    ("put_whole", r"_run/index/"),
    ("create_once", r"_run/plan\.json"),
    ("create_once", r"_run/canary"),
    ("put_file", r"_run/segments/00000/.*-e000000-"),
    ("put_file", r"_run/sealed/00002"),
    ("create_once", r"_run/commits/00002"),
    ("copy", r"part-00002"),
    ("put_file", r"_run/segments/00000/.*-e000001-"),
    ("create_once", r"_run/commits/00000"),
    ("put_file", r"manifest\.json"),
]
#: Each point with both moments; `make test` takes three: while seeding, running and publishing.
IN_SHORT = {(3, "after")}
MOMENTS = [
    pytest.param(
        *point, moment, marks=[] if (number, moment) in IN_SHORT else [pytest.mark.all_only]
    )
    for number, point in enumerate(POINTS)
    for moment in ("before", "after")
]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize(("operation", "name", "moment"), MOMENTS)
def test_a_killed_retry_goes_on_to_the_same_bytes(
    retry, job, calm, parent, tmp_path, operation, name, moment
):
    """Killed while it seeds or runs: gc takes nothing that is needed, the same command ends it."""
    marks = tmp_path / "marks"
    marks.mkdir()
    (marks / "driver.pid").write_text("0")
    point = {"phase": "retry", "victim": "session", "operation": operation, "name": name}
    point |= {"moment": moment, "occurrence": 1, "folder": str(marks)}
    new = tmp_path / "new"
    done = retry(*TIMEOUTS, env=armed(point))
    assert (marks / "crashed").exists(), done.stderr
    assert done.returncode == -signal.SIGKILL
    if (new / "_run/plan.json").exists():
        refused = run(job, "run", job.path, *INLINE, "--set", f"output.url={new}")
        assert refused.returncode == 3, refused.stderr
        assert "retry-dead" in refused.stderr
        summary_of(run(job, "gc", new))
    summary = summary_of(retry(*TIMEOUTS))
    assert summary["state"] == "complete"
    assert rows_of(new) == rows_of(calm)
    manifest = json.loads((new / "manifest.json").read_text())
    assert manifest["parent"]["reasons"] == ["row_timeout"]
    assert summary_of(retry(*TIMEOUTS))["state"] == "already complete"


@pytest.mark.ray
@pytest.mark.slow
def test_what_cannot_be_retried_so_is_refused_and_says_why(retry, job, parent, tmp_path):
    """A changed job, the parent itself, a folder that holds something else, other reasons."""
    new = tmp_path / "new"

    def refused(exit_code, *words, done):
        assert summary_of(done, exit_code)["exit"] == exit_code
        for word in words:
            assert word in done.stderr
        assert not (new / "_SUCCESS").exists()

    change = ("--set", "generation.max_new_tokens=9")
    refused(3, "generation.max_new_tokens: 20 -> 9", "Take the change back", done=retry(*change))
    refused(2, "--into", done=retry(into=parent))
    refused(3, "only a finished output", done=retry(of=tmp_path / "none"))
    done = retry("--reason", "to_deep")
    assert (done.returncode, "too_deep" in done.stderr) == (2, True)
    plain = tmp_path / "plain"
    shutil.copytree(parent, plain)
    refused(3, "began with nothing", done=retry(into=plain))
    (plain / "_SUCCESS").unlink()
    refused(3, "began with nothing", done=retry(into=plain))
    refused(3, "only a finished output", done=retry(of=plain))
    summary_of(retry("--reason", "not_json", into=tmp_path / "begun"))
    refused(
        3,
        "began with a retry of dead letters",
        "reasons not_json",
        done=retry(into=tmp_path / "begun"),
    )
    (tmp_path / "begun/_SUCCESS").unlink()
    refused(
        3,
        "began with a retry of dead letters",
        "reasons not_json",
        done=retry(into=tmp_path / "begun"),
    )


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "exit_code", "words"),
    [
        ("part-00000-of-00006.jsonl", 7, "is damaged"),
        ("part-00002-of-00006.jsonl", 7, "is damaged"),
        ("dead-00003-of-00006.jsonl", 7, "is damaged"),
        ("manifest.json", 7, "not what was written"),
        ("_run/commits/00002.json", 7, "does not name the files"),
        ("_run/index", 3, "is damaged"),
    ],
)
def test_nothing_is_made_of_a_damaged_parent(retry, parent, tmp_path, name, exit_code, words):
    """One byte of it changed: the retry ends before it has a manifest."""
    copy = tmp_path / "copy"
    shutil.copytree(parent, copy)
    path = copy / name
    if path.is_dir():
        (path,) = path.iterdir()
    content = path.read_bytes()
    at = content.index(b'"sha256"') + 12 if b'"sha256"' in content else len(content) // 2
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    done = retry(*TIMEOUTS, of=copy)
    summary_of(done, exit_code)
    assert words in done.stderr
    assert not (tmp_path / "new/manifest.json").exists()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("name", ["_run/plan.json", "_run/commits/00001.json", "_run/canary.json"])
def test_a_parent_without_its_run_folder_says_what_is_gone(retry, parent, tmp_path, name):
    """Exit 3; segments and sealed files are not needed."""
    copy = tmp_path / "copy"
    shutil.copytree(parent, copy)
    shutil.rmtree(copy / "_run/sealed")
    summary_of(retry(*TIMEOUTS, of=copy))
    (copy / name).unlink()
    done = retry(*TIMEOUTS, of=copy, into=tmp_path / "other")
    summary_of(done, 3)
    assert f"{name} is gone" in done.stderr


def test_a_retry_that_stays_mostly_dead_goes_on_to_its_end(make_job, make_lines, tmp_path):
    """A run stops after 1,000 rows of which most are dead; every row of a retry was dead before."""
    job = make_job("dead").write([*make_lines(1200), *[b"not JSON"] * 1100], rows_per_shard=600)
    summary_of(job.run(*INLINE))
    new = tmp_path / "new"
    done = run(job, "retry-dead", job.output, job.path, "--into", new, *INLINE)
    summary = summary_of(done)
    assert (summary["dead"], summary["rows_resumed"]) == (1100, 1200)
    assert rows_of(new) == rows_of(job.output)


def test_a_parent_of_no_dead_letters_is_copied_whole(make_job, make_lines, tmp_path):
    """Nothing to run, and no session is opened; exit 0 means that the new output is there."""
    job = make_job("sound").write(make_lines(10), rows_per_shard=4)
    summary_of(job.run(*INLINE))
    new = tmp_path / "new"
    done = run(job, "retry-dead", job.output, job.path, "--into", new, *INLINE)
    summary = summary_of(done)
    assert (summary["rows"], summary["workers"]) == (10, 0)
    assert "0 dead letters" in done.stderr
    assert rows_of(new) == rows_of(job.output)
    with pytest.raises(OutputMismatch, match="only a finished output"):
        open_parent(open_store(str(tmp_path)), [])


def test_a_retry_of_a_reason_that_no_row_has_makes_nothing(make_job, make_lines, tmp_path):
    """It would be a copy that nobody asked for; what there is to retry is named."""
    job = make_job("dead").write([*make_lines(8), b"not JSON", b"[]", b"{"], rows_per_shard=4)
    job.path.write_text(job.path.read_text().replace("max_dead_rows: 0", "max_dead_rows: 9"))
    done = job.run(*INLINE)
    assert done.returncode in {0, 5}, done.stderr
    new = tmp_path / "new"

    def retry(*arguments):
        return run(job, "retry-dead", job.output, job.path, "--into", new, *INLINE, *arguments)

    done = retry(*TIMEOUTS, "--reason", "too_deep")
    assert summary_of(done, 2)["exit"] == 2
    assert f"no dead letters of row_timeout or too_deep in {job.output}" in done.stderr
    assert "it has: not_an_object 1, not_json 2; name one of these" in done.stderr
    assert not new.exists()
    # A finished retry of this kind, from a release that made one, stays finished.
    seed = open_parent(open_store(str(job.output)), ["row_timeout"])
    shutil.copytree(job.output, new)
    plan = json.loads((new / "_run/plan.json").read_text())
    (new / "_run/plan.json").write_text(json.dumps({**plan, "parent": seed.parent.to_json()}))
    assert "Nothing was made" not in retry(*TIMEOUTS).stderr


TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
SAMPLES = st.lists(
    st.builds(
        Sample,
        TEXT,
        st.sampled_from(["eos", "stop", "length"]),
        st.integers(0, 99),
        st.just((-0.5, -1.25)),
    ),
    min_size=1,
    max_size=3,
)


@given(SAMPLES, st.integers(0, 10**6), TEXT, st.integers(1, 9000))
def test_a_published_prediction_is_read_back_as_its_outcome(samples, prompt, label, num_digits):
    """One sample or several, with log-probabilities, an id of any length, any carried text."""
    fields = Fields({}, {"id": "7" * num_digits, "label": json.dumps(label)})
    row = Row(3, 0, 4, "a.jsonl", 17, b"")
    line = prediction_line(
        row,
        fields,
        id_field="id",
        carry=["label"],
        num_prompt_tokens=prompt,
        samples=samples,
    )
    reasons = ",".join(sample.finish_reason for sample in samples)
    generated = sum(sample.num_generated_tokens for sample in samples)
    wanted = Outcome(True, reasons, line, prompt, generated)
    assert outcome_of(line, is_prediction=True) == wanted


OUTCOMES = st.lists(
    st.sampled_from(["prediction", "not_json", "row_timeout", "session_killed"]), max_size=30
)


@given(OUTCOMES, st.sets(st.sampled_from(["not_json", "row_timeout", "session_killed"])))
def test_segments_hold_the_kept_rows_and_no_other(tmp_path_factory, kinds, reasons):
    """Against a list of rows; lines byte for byte; no two segments could be one."""
    folder = tmp_path_factory.mktemp("shard")
    shard = Shard(2, 100, 100 + len(kinds))
    outcomes = []
    for number, kind in enumerate(kinds):
        row = Row(100 + number, number // 7, number % 7 + 1, "a", 0, b"")
        if kind == "prediction":
            samples = [Sample("text", "eos", number)]
            line = prediction_line(
                row, Fields({}, {}), id_field=None, carry=[], num_prompt_tokens=2, samples=samples
            )
            outcomes.append(Outcome(True, "eos", line, 2, number))
        else:
            line = dead_line(row, reason=kind, detail="why", id_text=None)
            outcomes.append(Outcome(False, kind, line))
    files = {True: folder / "part", False: folder / "dead"}
    for is_prediction, path in files.items():
        lines = [one.line for one in outcomes if one.is_prediction == is_prediction]
        path.write_bytes(b"".join(lines))
    found = {}
    ends = []
    read = read_shard(files[True], files[False], shard)
    kept = (one if is_kept(one, reasons) else None for one in read)
    for segment in kept_segments(kept, shard, folder / "segment"):
        content = (folder / "segment").read_bytes()
        assert hashlib.sha256(content).hexdigest() == segment.sha256
        assert (segment.shard, segment.epoch) == (2, 0)
        assert segment.first_row not in ends
        ends.append(segment.end_row)
        lines = content.splitlines(keepends=True)
        found |= dict(zip(range(segment.first_row, segment.end_row), lines, strict=True))
    wanted = {
        100 + number: outcome.to_bytes()
        for number, outcome in enumerate(outcomes)
        if outcome.is_prediction or outcome.label not in reasons
    }
    assert found == wanted


@pytest.mark.parametrize("change", ["drop", "double", "swap"])
def test_a_shard_that_lacks_a_row_is_not_read_as_if_it_were_whole(tmp_path, change):
    """Missing, there twice, or out of order."""
    rows = [Row(number, 0, number + 1, "a", 0, b"") for number in range(4)]
    lines = [dead_line(row, reason="not_json", detail="", id_text=None) for row in rows]
    changed = {
        "drop": [*lines[:2], lines[3]],
        "double": [*lines[:2], lines[1], *lines[2:]],
        "swap": [lines[1], lines[0], *lines[2:]],
    }
    (tmp_path / "part").write_bytes(b"")
    (tmp_path / "dead").write_bytes(b"".join(changed[change]))
    with pytest.raises(ValueError, match="row"):
        list(read_shard(tmp_path / "part", tmp_path / "dead", Shard(0, 0, 4)))
