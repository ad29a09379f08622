"""Making, saving and finding plans, and the pins a reader holds inputs to."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rdu_batch.dataset.planning import (
    OutputState,
    load_plan,
    make_plan,
    plan_of_output,
    save_plan,
    state_of_output,
)
from rdu_batch.dataset.reader import RowReader
from rdu_batch.errors import InputError, OutputMismatch
from rdu_batch.job.plan import Plan
from rdu_batch.job.spec import JobSpec
from rdu_batch.storage.store import Store, open_store

MakeSpec = Callable[..., JobSpec]
DIGEST = "sha256:artifact"


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """Three files of 4, 0 and 3 rows."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(
        b'{"text": "1"}\n\n{"text": "22"}\n{"text": "333"}\n{"t": 4}\n'
    )
    (folder / "b.jsonl").write_bytes(b"\n\n")
    (folder / "c.jsonl").write_bytes(b'{"text": "5"}\n{"text": "6"}\n{"text": "7"}')
    return folder


@pytest.fixture
def output(tmp_path: Path) -> Store:
    """A folder that does not exist yet."""
    return open_store(str(tmp_path / "out"))


def all_rows(output: Store, plan: Plan) -> list[bytes]:
    """Every row's bytes."""
    return [row.line_bytes for row in RowReader(output, plan).read_rows(0, plan.num_rows)]


def test_a_plan_counts_files_rows_bytes_and_shards(
    make_spec: MakeSpec, inputs: Path, output: Store
) -> None:
    """Blank lines are no rows; making a plan writes nothing."""
    spec = make_spec([str(inputs)], output.url, output={"rows_per_shard": 3})
    planned = make_plan(spec, DIGEST)
    assert planned.plan.num_files == 3
    assert planned.plan.num_rows == 7
    assert planned.plan.num_shards == 3
    assert planned.plan.num_bytes == sum(path.stat().st_size for path in inputs.iterdir())
    assert planned.plan.longest_rows[0].path == "a.jsonl"
    assert planned.plan.longest_rows[0].line == 4
    assert make_plan(spec, DIGEST) == planned
    assert not Path(output.url).exists()


def test_a_saved_plan_is_loaded_with_its_index(
    make_spec: MakeSpec, inputs: Path, output: Store
) -> None:
    """What another process needs is in the store."""
    assert load_plan(output) is None
    saved = save_plan(output, make_plan(make_spec([str(inputs)], output.url), DIGEST))
    loaded = load_plan(open_store(output.url))
    assert loaded == saved
    assert len(all_rows(output, saved)) == 7


def test_the_plan_of_an_output_is_found_without_its_inputs(
    make_spec: MakeSpec, inputs: Path, output: Store
) -> None:
    """A rerun lists and reads nothing: the inputs may be gone."""
    spec = make_spec([str(inputs)], output.url)
    plan = plan_of_output(output, spec, DIGEST)
    for path in inputs.iterdir():
        path.unlink()
    assert plan_of_output(output, spec, DIGEST) == plan


def test_the_first_plans_pins_count(make_spec: MakeSpec, inputs: Path, output: Store) -> None:
    """A new input file is no part of a job that was planned before."""
    spec = make_spec([str(inputs)], output.url)
    first = save_plan(output, make_plan(spec, DIGEST))
    (inputs / "d.jsonl").write_bytes(b"{}\n")
    later = make_plan(spec, DIGEST)
    assert later.plan.num_rows == 8
    assert save_plan(output, later) == first
    assert len(all_rows(output, first)) == 7


def test_another_job_on_the_output_is_refused_with_the_difference(
    make_spec: MakeSpec, inputs: Path, output: Store
) -> None:
    """The message has old and new value and what to do; nothing is written."""
    plan = plan_of_output(output, make_spec([str(inputs)], output.url), DIGEST)
    names = output.list_names("", recursive=True)
    changed = make_spec([str(inputs)], output.url, generation={"max_new_tokens": 32})
    for attempt in (
        lambda: plan_of_output(output, changed, DIGEST),
        lambda: save_plan(output, make_plan(changed, DIGEST)),
    ):
        with pytest.raises(OutputMismatch, match=r"generation\.max_new_tokens: 64 -> 32") as caught:
            attempt()
        assert "choose another output.url" in str(caught.value)
    assert output.list_names("", recursive=True) == names
    assert load_plan(output) == plan


def test_what_may_change_does_not_make_another_job(
    make_spec: MakeSpec, inputs: Path, output: Store
) -> None:
    """Limits and worker counts are free."""
    plan = plan_of_output(output, make_spec([str(inputs)], output.url), DIGEST)
    changed = make_spec([str(inputs)], output.url, workers={"count": 3}, limits={"deadline_s": 9.0})
    assert plan_of_output(output, changed, DIGEST) == plan


def test_planners_that_race_and_see_different_inputs_end_with_one_plan(
    make_spec: MakeSpec, inputs: Path, output: Store
) -> None:
    """All get the winner's plan, and its index is whole whoever wrote last."""
    spec = make_spec([str(inputs)], output.url)
    planned = []
    for number in range(8):
        (inputs / "z.jsonl").write_bytes(b"{}\n" * number)
        planned.append(make_plan(spec, DIGEST))
    barrier = threading.Barrier(len(planned))

    def save(number: int) -> Plan:
        barrier.wait()
        return save_plan(output, planned[number])

    with ThreadPoolExecutor(len(planned)) as pool:
        plans = list(pool.map(save, range(len(planned))))
    assert len({plan.digest for plan in plans}) == 1
    winner = next(number for number, each in enumerate(planned) if each.plan == plans[0])
    files = list(RowReader(output, plans[0]).input_files())
    assert files[-1].num_rows == winner
    assert load_plan(output) == plans[0]


def test_a_limit_ends_with_the_file_in_which_it_is_reached(
    make_spec: MakeSpec, inputs: Path, output: Store
) -> None:
    """Files before are pinned whole; a file after it is not even read, and may be bad."""
    (inputs / "d.jsonl").symlink_to(inputs / "nowhere")
    spec = make_spec([str(inputs)], output.url, input={"limit": 5})
    plan = plan_of_output(output, spec, DIGEST)
    assert (plan.num_rows, plan.num_files) == (5, 3)
    assert all_rows(output, plan)[-1] == b'{"text": "5"}'
    reader = RowReader(output, plan)
    assert [file.num_rows for file in reader.input_files()] == [4, 0, 3]
    assert {(row.path, row.line) for row in plan.longest_rows} == {
        ("a.jsonl", 1),
        ("a.jsonl", 3),
        ("a.jsonl", 4),
        ("a.jsonl", 5),
        ("c.jsonl", 1),
    }
    with pytest.raises(ValueError, match="not in"):
        reader.read_rows(0, 6)


def test_many_files_make_several_pages_and_read_back(
    make_spec: MakeSpec, tmp_path: Path, output: Store
) -> None:
    """More files than one page holds; a range may span pages."""
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(2100):
        (folder / f"{number:04d}.jsonl").write_bytes(b'{"n": %d}\n' % number)
    plan = plan_of_output(output, make_spec([str(folder)], output.url), DIGEST)
    assert [page.num_files for page in plan.index_pages] == [1000, 1000, 100]
    assert [page.first_row for page in plan.index_pages] == [0, 1000, 2000]
    reader = RowReader(output, plan)
    got = [row.line_bytes for row in reader.read_rows(998, 2003)]
    assert got == [b'{"n": %d}' % number for number in range(998, 2003)]
    assert [file.index for file in reader.input_files()] == list(range(2100))


def test_a_job_without_rows_has_a_plan_and_one_shard(
    make_spec: MakeSpec, inputs: Path, output: Store
) -> None:
    """Blank files only."""
    plan = plan_of_output(output, make_spec([str(inputs / "b.jsonl")], output.url), DIGEST)
    assert (plan.num_rows, plan.num_shards, plan.longest_rows) == (0, 1, ())
    assert all_rows(output, plan) == []


def test_an_output_is_not_taken_as_an_input(make_spec: MakeSpec, inputs: Path) -> None:
    """Parts in an output that lies among its inputs would grow with each plan."""
    (inputs / "part-00000-of-00001.jsonl").write_bytes(b"{}\n")
    with pytest.raises(InputError, match="lies in the output folder"):
        make_plan(make_spec([str(inputs)], str(inputs)), DIGEST)


def test_the_state_of_an_output_is_told(make_spec: MakeSpec, inputs: Path, output: Store) -> None:
    """New, in progress, complete, and another job."""
    spec = make_spec([str(inputs)], output.url)
    decides = make_plan(spec, DIGEST).plan.decides
    assert state_of_output(output, None, decides) == OutputState.NEW
    plan = plan_of_output(output, spec, DIGEST)
    assert state_of_output(output, plan, decides) == OutputState.IN_PROGRESS
    output.put_whole("_SUCCESS", b"digest")
    assert state_of_output(output, plan, decides) == OutputState.COMPLETE
    assert state_of_output(output, plan, {"other": 1}) == OutputState.ANOTHER_JOB


def _same_size(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"22", b"99"))


def _grown(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"{}\n")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (_same_size, "bytes 0 to 55 are not those planned"),
        (_grown, "it has 58 bytes, planned 55"),
        (_cut, "it has 51 bytes, planned 55"),
        (Path.unlink, "it is gone"),
    ],
)
def test_an_input_changed_since_the_plan_is_refused(
    make_spec: MakeSpec, inputs: Path, output: Store, change: Callable[[Path], None], found: str
) -> None:
    """The error names the file, what was found and what was planned; exit 4."""
    path = inputs / "a.jsonl"
    plan = plan_of_output(output, make_spec([str(inputs)], output.url), DIGEST)
    change(path)
    with pytest.raises(InputError, match="changed since the plan was made") as caught:
        list(RowReader(output, plan).read_rows(0, 4))
    assert found in str(caught.value)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (_same_size, "bytes 24 to 32 are not those planned"),
        (_cut, "it has 51 bytes, planned 55"),
        (Path.unlink, "it is gone"),
    ],
)
def test_an_input_changed_while_it_is_read_is_refused(
    make_spec: MakeSpec, inputs: Path, output: Store, change: Callable[[Path], None], found: str
) -> None:
    """Every window is checked, not only the first look at the file."""
    path = inputs / "a.jsonl"
    planned = make_plan(make_spec([str(inputs)], output.url), DIGEST, window_bytes=8)
    plan = save_plan(output, planned)
    reader = RowReader(output, plan, window_bytes=8)
    assert [row.line for row in reader.read_rows(0, 1)] == [1]
    change(path)
    with pytest.raises(InputError, match="changed since the plan was made") as caught:
        list(reader.read_rows(0, 4))
    assert found in str(caught.value)


def test_a_damaged_index_is_refused(make_spec: MakeSpec, inputs: Path, output: Store) -> None:
    """A page that is not the plan's ends the job before a row is read wrongly."""
    plan = plan_of_output(output, make_spec([str(inputs)], output.url), DIGEST)
    page = plan.index_pages[0].name
    content = output.read(page)
    output.put_whole(page, content.replace(b"a.jsonl", b"x.jsonl"))
    with pytest.raises(OutputMismatch, match="is damaged"):
        all_rows(output, plan)
    output.delete(page)
    with pytest.raises(OutputMismatch, match="is gone"):
        list(RowReader(output, plan).input_files())


@pytest.mark.parametrize(("first", "end"), [(-1, 2), (3, 2), (0, 8), (8, 8)])
def test_a_range_outside_the_plan_is_a_mistake(
    make_spec: MakeSpec, inputs: Path, output: Store, first: int, end: int
) -> None:
    """It is said at the call, not when the first row is wanted."""
    plan = plan_of_output(output, make_spec([str(inputs)], output.url), DIGEST)
    with pytest.raises(ValueError, match="are not in"):
        RowReader(output, plan).read_rows(first, end)


@pytest.mark.parametrize("name", ["a.jsonl", "missing.jsonl"])
def test_a_plan_leaves_the_collector_as_it_was(
    make_spec: MakeSpec, tmp_path: Path, name: str
) -> None:
    """Also where planning ends with an error."""
    (tmp_path / "a.jsonl").write_bytes(b"{}\n")
    assert gc.isenabled()
    with contextlib.suppress(InputError):
        make_plan(make_spec([str(tmp_path / name)], str(tmp_path / "out")), "x")
    assert gc.isenabled()
