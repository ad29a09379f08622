"""Shards hold every row once; a plan has one text; what decides the bytes is exactly known."""

from __future__ import annotations

import json
import re
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdu_batch.errors import OutputMismatch
from rdu_batch.job.loading import load_spec
from rdu_batch.job.plan import (
    FORMAT_VERSION,
    IndexPage,
    InputFile,
    LongestRow,
    Parent,
    Plan,
    Window,
    canonical_json,
    diff_decides,
    digest_of,
    job_decides,
)

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
DIGEST = st.text("0123456789abcdef", min_size=16, max_size=16)
COUNT = st.integers(0, 10**12)
PAGES = st.lists(st.builds(IndexPage, TEXT, TEXT, COUNT, COUNT, COUNT, COUNT), max_size=3)
LONGEST = st.lists(st.builds(LongestRow, COUNT, COUNT, TEXT, COUNT), max_size=3)
DECIDES = st.dictionaries(TEXT, st.none() | st.integers() | TEXT | st.lists(TEXT), max_size=4)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Any plan."""
    return Plan(
        version=FORMAT_VERSION,
        name=draw(TEXT),
        job_digest=draw(TEXT),
        decides=draw(DECIDES),
        num_files=draw(COUNT),
        num_rows=draw(COUNT),
        num_bytes=draw(COUNT),
        rows_per_shard=draw(st.integers(1, 10**6)),
        index_pages=tuple(draw(PAGES)),
        longest_rows=tuple(draw(LONGEST)),
    )


def plan_of(num_rows: int, rows_per_shard: int) -> Plan:
    """A plan of which only the rows matter."""
    return Plan(FORMAT_VERSION, "a", "sha256:0", {}, 1, num_rows, 9, rows_per_shard, (), ())


@given(st.integers(0, 3000), st.integers(1, 400))
def test_shards_partition_the_rows(num_rows: int, rows_per_shard: int) -> None:
    """Every row in one shard, in order, none too long, none empty unless there are no rows."""
    shards = list(plan_of(num_rows, rows_per_shard).shards())
    ordinals = [row for shard in shards for row in range(shard.first_row, shard.end_row)]
    assert ordinals == list(range(num_rows))
    assert [shard.index for shard in shards] == list(range(len(shards)))
    assert all(shard.num_rows <= rows_per_shard for shard in shards)
    assert all(shard.num_rows == rows_per_shard for shard in shards[:-1])
    assert (shards[-1].num_rows > 0) == (num_rows > 0)
    assert plan_of(num_rows, rows_per_shard).num_shards == len(shards) >= 1


def test_a_shard_outside_the_plan_is_refused() -> None:
    """Negative ones too: no counting from the end."""
    for index in (-1, 2):
        with pytest.raises(IndexError, match=rf"shard {index} is not one of 0\.\.1"):
            plan_of(20, 10).shard(index)


@given(plans())
def test_a_plan_reads_back_what_it_wrote(plan: Plan) -> None:
    """And writes the same bytes again."""
    content = plan.to_bytes()
    again = Plan.from_bytes(content)
    assert again == plan
    assert again.to_bytes() == content
    assert again.digest == plan.digest


def test_the_bytes_of_a_plan_do_not_depend_on_the_order_of_its_making() -> None:
    """Keys are sorted, at every level."""
    one = plan_of(5, 2)
    two = Plan.from_bytes(json.dumps(dict(reversed(json.loads(one.to_bytes()).items()))).encode())
    assert two.to_bytes() == one.to_bytes()


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"3", b"\xff", b'{"version": 4}', b"{"])
def test_a_damaged_plan_is_refused(content: bytes) -> None:
    """With what to do about it."""
    with pytest.raises(OutputMismatch, match=r"_run/plan\.json is damaged.*choose another"):
        Plan.from_bytes(content)


def test_a_plan_of_another_version_is_refused_with_both_versions() -> None:
    """Even if nothing else of it can be read."""
    wanted = r"found plan version 5; this program reads version 4"
    with pytest.raises(OutputMismatch, match=wanted):
        Plan.from_bytes(b'{"version": 5, "future": true}')


def test_a_plan_with_a_parent_says_so() -> None:
    """A plan without one does not speak of it.

    Rows and shards are those of the parent's plan.
    """
    plan = plan_of(5, 2)
    retry = plan.with_parent(Parent("ab" * 32, ("row_timeout", "session_killed")))
    assert b"parent" not in plan.to_bytes()
    assert Plan.from_bytes(retry.to_bytes()) == retry
    assert list(retry.shards()) == list(plan.shards())
    assert (retry.job_digest, retry.digest != plan.digest) == (plan.job_digest, True)


@pytest.mark.parametrize("parent", [b'"parent": null', b'"parent": {}', b'"parents": 1'])
def test_a_damaged_parent_is_refused(parent: bytes) -> None:
    """As any other field of a plan."""
    content = plan_of(5, 2).with_parent(Parent("ab" * 32, ())).to_bytes()
    damaged = re.sub(rb'"parent": \{[^}]*\}', parent, content)
    assert damaged != content
    with pytest.raises(OutputMismatch, match=r"_run/plan\.json is damaged"):
        Plan.from_bytes(damaged)


@given(
    st.lists(st.builds(Window, COUNT, COUNT, st.integers(-1, 10**12), DIGEST), max_size=4),
    TEXT,
    TEXT,
    st.none() | TEXT,
)
def test_an_index_line_reads_back_as_its_file(
    windows: list[Window], path: str, url: str, etag: str | None
) -> None:
    """One line, one file; the line is its canonical JSON."""
    file = InputFile(3, url, path, "jsonl", 9, etag, 9, "ab", 4, 3, tuple(windows))
    line = file.to_line()
    assert line.count(b"\n") == 1
    assert line == canonical_json(json.loads(line)) + b"\n"
    assert InputFile.from_line(line) == file


@pytest.mark.parametrize("line", [b"", b"{}", b"3", b"[]", b'{"windows":[[1]]}', b"\xff"])
def test_a_damaged_index_line_is_refused(line: bytes) -> None:
    """As a damaged output."""
    with pytest.raises(OutputMismatch, match="index in _run/index/ is damaged"):
        InputFile.from_line(line)


def decides(text: str, *overrides: str, digest: str = "sha256:a") -> dict[str, Any]:
    """What decides the bytes of a job file with options."""
    spec = load_spec(text, source="job.yaml", overrides=overrides, date="2026-11-22")
    return job_decides(spec, digest)


@pytest.mark.parametrize(
    "override",
    [
        "name=other",
        "limits.max_dead_rows=7",
        "limits.attempts_per_row=9",
        "limits.row_timeout_s=1",
        "limits.session_memory_bytes=8GiB",
        "limits.start_timeout_s=1",
        "limits.deadline_s=1",
        "workers={count: 3, max: 4, cpus: 2, gpus: 1, resources: {rdu: 1}}",
        "output.url=elsewhere",
        "output.single_writer=true",
        "session.artifact=elsewhere",
    ],
)
def test_what_may_change_between_runs_does_not_decide(whole_job: str, override: str) -> None:
    """Name, limits, workers, where the output and the artifact lie."""
    assert decides(whole_job, override) == decides(whole_job)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("input.urls=[b]", 'input.urls: ["s3://corpus/reviews/2026-11-22/*.jsonl"] -> ["b"]'),
        ("input.id_field=key", 'input.id_field: "id" -> "key"'),
        ("input.carry=[a]", 'input.carry: ["label"] -> ["a"]'),
        ("input.limit=5", "input.limit: null -> 5"),
        ("prompt.chat_template=true", "prompt.chat_template: false -> true"),
        ("prompt.overflow=truncate_left", 'prompt.overflow: (absent) -> "truncate_left"'),
        ("prompt.date=2026-01-01", 'prompt.date: null -> "2026-01-01"'),
        ("session.kind=eager", 'session.kind: "inductor" -> "eager"'),
        ("session.threads=2", "session.threads: 1 -> 2"),
        ("generation.max_new_tokens=32", "generation.max_new_tokens: 64 -> 32"),
        ("generation.temperature=1", "generation.temperature: 0.0 -> 1.0"),
        ("generation.top_k=3", "generation.top_k: null -> 3"),
        ("generation.top_p=0.5", "generation.top_p: null -> 0.5"),
        ("generation.min_p=0.1", "generation.min_p: null -> 0.1"),
        ("generation.repetition_penalty=1.2", "generation.repetition_penalty: 1.0 -> 1.2"),
        ("generation.min_new_tokens=2", "generation.min_new_tokens: 0 -> 2"),
        ("generation.stop_token_ids=[5]", "generation.stop_token_ids: [] -> [5]"),
        ("generation.logprobs=true", "generation.logprobs: false -> true"),
        ("generation.overrides_field=own", 'generation.overrides_field: null -> "own"'),
        ("generation.stop=[]", 'generation.stop: ["\\n"] -> []'),
        ("generation.seed=1", "generation.seed: 0 -> 1"),
        ("output.rows_per_shard=5", "output.rows_per_shard: 10000 -> 5"),
    ],
)
def test_what_decides_the_bytes_is_told_as_a_difference(
    whole_job: str, override: str, line: str
) -> None:
    """One line for one change, and another digest."""
    old, new = decides(whole_job), decides(whole_job, override)
    assert diff_decides(old, new) == [line]
    assert digest_of(old) != digest_of(new)


def test_a_job_that_cuts_no_prompts_is_what_it_was_before_there_was_overflow(
    whole_job: str,
) -> None:
    """Its outputs go on; said or not said is the same job."""
    assert decides(whole_job, "prompt.overflow=error") == decides(whole_job)
    assert "overflow" not in decides(whole_job)["prompt"]


def test_the_prompt_and_the_artifact_decide(whole_job: str) -> None:
    """The artifact by its digest alone."""
    old = decides(whole_job)
    other = decides(whole_job, "prompt={messages_field: m, system: s}")
    assert {line.split(":")[0] for line in diff_decides(old, other)} == {
        "prompt.template",
        "prompt.messages_field",
        "prompt.system",
        "prompt.chat_template",
    }
    new = decides(whole_job, digest="sha256:b")
    assert diff_decides(old, new) == ['artifact_digest: "sha256:a" -> "sha256:b"']


def test_the_same_number_written_otherwise_decides_the_same(whole_job: str) -> None:
    """0 and 0.0 are one temperature; a list written below itself is the same list."""
    assert digest_of(decides(whole_job, "generation.temperature=0")) == digest_of(
        decides(whole_job, "generation.temperature=0.0")
    )


def test_a_difference_survives_the_way_through_a_saved_plan(whole_job: str) -> None:
    """What was read back from JSON equals what is made anew."""
    made = decides(whole_job)
    read = json.loads(json.dumps(made))
    assert diff_decides(read, made) == []
    assert digest_of(read) == digest_of(made)


def test_absent_keys_are_named(whole_job: str) -> None:
    """A plan of an older program may lack a leaf, or have one more."""
    made = decides(whole_job)
    older = {key: value for key, value in made.items() if key != "artifact_digest"}
    assert diff_decides(older, {**made, "x": 1}) == [
        'artifact_digest: (absent) -> "sha256:a"',
        "x: (absent) -> 1",
    ]
    long = diff_decides({"a": "x" * 999}, {"a": 1})
    assert len(long[0]) < 250


@given(st.dictionaries(st.text(string.ascii_letters), st.integers() | TEXT))
def test_canonical_json_does_not_depend_on_order(values: dict[str, Any]) -> None:
    """Sorted keys, and read back as they were."""
    content = canonical_json(values)
    assert content == canonical_json(dict(reversed(values.items())))
    assert json.loads(content) == values


def test_the_digest_of_a_known_value_is_known() -> None:
    """A change here would make every saved output look like another job."""
    value = {"b": 1.0, "a": ["\u00e9", None]}
    assert canonical_json(value) == b'{"a":["\xc3\xa9",null],"b":1.0}'
    assert digest_of({}) == (
        "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    )
