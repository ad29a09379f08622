"""Rows that segfault, exit, eat memory or never return, in real jobs on a local Ray.

The bound on executions, of S poison rows, ``attempts_per_row`` a and any leases: a row that kills
its session runs once in company and a times alone; the rows before it in its lease are kept, those
after it had not begun, so every other row runs once. Each late lease that is handed to a second
worker may run the rows of that lease once more, in company: poison rows at most 2 + a times, others
at most twice. A killed driver costs one more try of a row whose death nobody noted.
"""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]

MARKS = Path(__file__).parent / "execution_marks"
CRASH_POINTS = Path(__file__).parent / "crash_points"
NUM_ROWS = 44
#: Long enough for the row that eats memory to reach its limit on a machine that does other things.
ROW_TIMEOUT_S = 6.0
MEMORY_LIMIT = "400MB"
MEMORY_LIMIT_BYTES = 400_000_000
#: By line: what the row does, and the reason of its dead letter.
POISON = {
    6: ("[[fake:crash]]", "session_killed"),
    7: ("[[fake:exit 3]]", "session_killed"),
    20: ("[[fake:eat-memory]]", "session_killed"),
    31: ("[[fake:hang]]", "row_timeout"),
}


def row_texts(poison):
    """The prompt of each line; poison rows do what ``poison`` says."""
    return {
        line: f"<row-{line}> {poison.get(line, ('word ' * (line % 7),))[0]}"
        for line in range(1, NUM_ROWS + 1)
    }


def input_lines(poison):
    return [
        json.dumps({"id": f"r{line}", "text": text}).encode()
        for line, text in row_texts(poison).items()
    ]


@dataclass
class Run:
    """A job that met its poison rows, and how to look at what it left."""

    output: Path
    marks: Path
    stderr: str

    def executions(self):
        """How often each row was begun, by line."""
        return Counter(map(int, self.marks.read_text().split()))

    def dead(self):
        """The dead letters in order."""
        files = sorted(self.output.glob("dead-*"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]

    def parts(self):
        return {path.name: path.read_bytes() for path in sorted(self.output.glob("part-*"))}

    def forensics(self):
        """What is known of each death, by the line of its row."""
        deaths = {}
        for path in sorted(self.output.glob("_run/forensics/*.json")):
            death = json.loads(path.read_text())
            deaths.setdefault(death["row"]["line"] if death["row"] else None, []).append(death)
        return deaths

    def attempts(self):
        """How many solo tries were begun, and how many strikes were noted, by line."""
        begun, strikes = Counter(), Counter()
        for path in self.output.glob("_run/attempts/*/*.json"):
            row = int(path.name.split("-")[0])
            (begun if ".begun." in path.name else strikes)[row + 1] += 1
        return begun, strikes


@pytest.fixture
def poison_job(job, tmp_path, read_last_json):
    """Runs the job with its poison rows on Ray, or without them in one process."""
    limits = {
        "max_dead_rows": len(POISON),
        "attempts_per_row": 2,
        "row_timeout_s": ROW_TIMEOUT_S,
        "session_memory_bytes": MEMORY_LIMIT,
    }
    job.write(input_lines(POISON), rows_per_shard=22, limits=limits)

    def run(name, num_workers, *arguments, env=None, must_end=True):
        output, marks = tmp_path / name, tmp_path / f"{name}.marks"
        env = {"PYTHONPATH": str(MARKS), "EXECUTION_MARKS": str(marks), **(env or {})}
        done = job.run(
            *("--address", "local", "--set", f"workers.count={num_workers}"),
            *("--set", f"output.url={output}", *arguments),
            env=env,
        )
        if must_end:
            assert done.returncode == 0, done.stderr
            summary = read_last_json(done)
            assert (summary["rows"], summary["dead"]) == (NUM_ROWS, len(POISON))
            assert "_run/forensics/" in done.stderr
            # At least one worker was a row's time limit long at each of the rows that never end.
            assert summary["worker_seconds"]["wasted_s"] >= ROW_TIMEOUT_S
        return Run(output, marks, done.stderr)

    return run


@pytest.fixture
def parts_without_poison(make_job):
    """The same rows in the same lines, where the poison rows have no poison; nobody dies."""
    job = make_job("calm")
    done = job.write(input_lines({}), rows_per_shard=22).run("--executor", "inline")
    assert done.returncode == 0, done.stderr
    lines = {}
    for path in sorted(job.output.glob("part-*")):
        kept = [
            line
            for line in path.read_bytes().splitlines(keepends=True)
            if json.loads(line)["row"][1] not in POISON
        ]
        lines[path.name] = b"".join(kept)
    return lines


def check_outcomes(run, parts):
    """Exactly the poison rows are dead, for the right reason; all others are as without them."""
    assert run.parts() == parts
    assert [(letter["row"][1], letter["reason"]) for letter in run.dead()] == [
        (line, reason) for line, (_, reason) in POISON.items()
    ]


def check_forensics(run, attempts_per_row):
    """Each death of each poison row is described, and no other row has any."""
    deaths = run.forensics()
    assert set(deaths) == set(POISON)
    signals = {6: "SIGSEGV", 7: None, 20: "SIGKILL", 31: "SIGKILL"}
    for line, found in deaths.items():
        assert len(found) >= 1 + attempts_per_row
        for death in found:
            assert death["signal"] == signals[line]
            assert death["exit_code"] == (3 if line == 7 else None)
            assert death["row"]["path"] == "rows.jsonl"
            assert death["row"]["row"] == line - 1
            assert f"begins row {line}\n" in death["stderr"][-40:]
            assert "word" not in json.dumps(death)
            assert 10_000_000 < death["own_memory_bytes"] < death["peak_memory_bytes"]
    for death in deaths[20]:
        assert "limits.session_memory_bytes" in death["ended_by"]
        assert death["own_memory_bytes"] > MEMORY_LIMIT_BYTES
    for death in deaths[31]:
        assert f"took longer than {ROW_TIMEOUT_S:g} s" in death["ended_by"]
        assert ROW_TIMEOUT_S <= death["row_s"] < 2 * ROW_TIMEOUT_S + 5
        assert death["own_memory_bytes"] < MEMORY_LIMIT_BYTES


def test_each_kind_of_poison_row_costs_its_own_tries_and_no_other_row(
    poison_job, parts_without_poison
):
    """One worker, so no lease is handed out twice: the numbers are exact."""
    run = poison_job("out", 1)
    check_outcomes(run, parts_without_poison)
    check_forensics(run, 2)
    wanted = {line: 1 + 2 if line in POISON else 1 for line in range(1, NUM_ROWS + 1)}
    assert run.executions() == wanted
    begun, strikes = run.attempts()
    assert begun == strikes == dict.fromkeys(POISON, 2)


@pytest.mark.all_only
@pytest.mark.parametrize("attempts_per_row", [1, 2])
def test_any_number_of_workers_gives_the_same_bytes_within_the_bound(
    poison_job, parts_without_poison, published_bytes, attempts_per_row
):
    """Late leases may be out twice, suspects never are."""
    trees = {}
    for num_workers in (1, 2, 3):
        limit = f"limits.attempts_per_row={attempts_per_row}"
        run = poison_job(f"out-{num_workers}", num_workers, "--set", limit)
        check_outcomes(run, parts_without_poison)
        check_forensics(run, attempts_per_row)
        for line, executions in run.executions().items():
            if line in POISON:
                assert 1 + attempts_per_row <= executions <= 2 + attempts_per_row
            else:
                assert executions <= (1 if num_workers == 1 else 2)
        begun, strikes = run.attempts()
        assert begun == strikes == dict.fromkeys(POISON, attempts_per_row)
        trees[num_workers] = published_bytes(run.output)
    assert trees[1] == trees[2] == trees[3]


@pytest.mark.all_only
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("what", ["begun", "session_killed", "row_timeout"])
def test_a_driver_that_is_killed_around_a_solo_try_changes_no_byte(
    poison_job, parts_without_poison, tmp_path, what, moment
):
    """A resume goes on counting: strikes that were noted are not struck again."""
    folder = tmp_path / "marks"
    folder.mkdir()
    point = {
        "phase": "trying",
        "victim": "driver",
        "operation": "put_whole",
        "name": rf"_run/attempts/.*\.{what}\.json",
        "moment": moment,
        "occurrence": 2 if what != "row_timeout" else 1,
        "folder": str(folder),
    }
    armed = {
        "CRASH_POINT": json.dumps(point),
        "PYTHONPATH": str(CRASH_POINTS),
    }
    killed = poison_job("out", 1, env=armed, must_end=False)
    assert (folder / "crashed").exists(), killed.stderr
    noted = killed.attempts()[1]
    run = poison_job("out", 1)
    check_outcomes(run, parts_without_poison)
    executions = run.executions()
    for line in POISON:
        # Of what was noted, nothing is tried again; what was not may cost one death in company.
        assert executions[line] <= 1 + 2 - noted[line]
    assert all(count == 1 for line, count in executions.items() if line not in POISON)
