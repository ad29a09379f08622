"""Faults of a device, as jobs on a real Ray meet them; the stand-in has them on demand."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rdu_batch.sessions.artifact_store import folder_entries, publish_artifact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rdu_batch.sessions.artifact import LocalArtifact

    Artifacts = Callable[[str, str], LocalArtifact]
    StartJob = Callable[..., Callable[[], "Ended"]]

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.all_only]

ROOT = Path(__file__).parents[3]
#: Stands in one prompt alone; the tiny tokenizer has one token for it.
POISON = "~"
PROMPTS = ["one two", "quick brown fox", "three four", f"a {POISON} b", "lazy dog", "hello there"]
POISON_LINE = 1 + next(index for index, text in enumerate(PROMPTS) if POISON in text)
#: Tokens of each prediction, and runs of the graph.
NUM_TOKENS = 12
#: Runs of a session's graph before its first row: one for each token of the canary.
CANARY_RUNS = 9
#: Many times what a row takes here, on a machine that does other things.
ROW_TIMEOUT_S = 6
ON_RAY = ("--address", "local", "--set", "workers.count=1")


@dataclass
class Ended:
    """A job that came to its end, and what it left."""

    code: int
    stderr: str
    output: Path

    def dead(self) -> dict[int, str]:
        """Reasons of the dead letters, by line."""
        return {
            record["row"][1]: record["reason"]
            for path in sorted(self.output.glob("dead-*"))
            for record in map(json.loads, path.read_text().splitlines())
        }

    def predictions(self) -> dict[int, bytes]:
        """The lines of the parts, byte for byte, by line of the input."""
        return {
            json.loads(line)["row"][1]: line
            for path in sorted(self.output.glob("part-*"))
            for line in path.read_bytes().splitlines()
        }

    def deaths(self) -> dict[int, list[dict[str, Any]]]:
        """What was noted of each session's death, by the line of its row."""
        found: dict[int, list[dict[str, Any]]] = {}
        for path in self.output.glob("_run/forensics/*.json"):
            death = json.loads(path.read_text())
            found.setdefault(death["row"]["line"], []).append(death)
        return found


@pytest.fixture(scope="module")
def start_job(
    tmp_path_factory: pytest.TempPathFactory, stand_in_environment: Mapping[str, str]
) -> Iterator[StartJob]:
    """Starts a job with faults of the device, in a process of its own; waits for it when called."""
    begun: list[subprocess.Popen[str]] = []

    def start(
        artifact: Path, *arguments: str, faults: tuple[dict[str, Any], ...] = ()
    ) -> Callable[[], Ended]:
        folder = tmp_path_factory.mktemp("job")
        rows, job, output = folder / "rows.jsonl", folder / "job.yaml", folder / "out"
        rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in PROMPTS))
        job.write_text(
            f"version: 1\nname: faults\ninput: {{urls: ['{rows}']}}\nprompt: {{field: text}}\n"
            f"session: {{kind: samba, artifact: '{artifact}'}}\n"
            f"generation: {{max_new_tokens: {NUM_TOKENS}}}\noutput: {{url: '{output}'}}\n"
            f"limits: {{max_dead_rows: 2, attempts_per_row: 1, row_timeout_s: {ROW_TIMEOUT_S}}}\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "rdu_batch", "run", str(job), *arguments],
            env={**stand_in_environment, "SAMBAFLOW_STAND_IN_FAULTS": json.dumps(faults)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        begun.append(process)
        return functools.cache(lambda: ended(process, output))

    yield start
    for process in begun:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str], output: Path) -> Ended:
    """Wait for a job."""
    _, stderr = process.communicate()
    print(stderr)  # noqa: T201 - shown where a test fails
    return Ended(process.returncode, stderr, output)


@pytest.fixture(scope="module")
def folder(tiny_artifact: Artifacts) -> Path:
    """The tiny GPT-2, compiled on the stand-in."""
    return tiny_artifact("samba", "gpt2").folder


@pytest.fixture(scope="module")
def calm(folder: Path, start_job: StartJob) -> Callable[[], Ended]:
    """The job undisturbed; it runs beside the first one that is disturbed."""
    return start_job(folder, "--executor", "inline")


@pytest.fixture(scope="module")
def poison(folder: Path) -> dict[str, Any]:
    """A fault: the device cannot compute with the numbers of one prompt."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    (token_id,) = tokenizer(POISON, add_special_tokens=False).input_ids
    return {"kind": "numerical", "token_id": int(token_id)}


def failure(folder: Path) -> dict[str, Any]:
    """A fault: the device of the first session that comes so far breaks in its second row."""
    at_run = CANARY_RUNS + NUM_TOKENS + 3
    return {"kind": "hw_exception", "at_run": at_run, "once_file": str(folder / "failed")}


def test_a_failing_device_costs_no_row_and_a_poison_prompt_only_itself(
    tmp_path: Path,
    folder: Path,
    calm: Callable[[], Ended],
    poison: dict[str, Any],
    start_job: StartJob,
) -> None:
    """The row in which the device failed is run again, and every byte is as without faults."""
    job = start_job(folder, *ON_RAY, faults=(failure(tmp_path), poison))()
    assert job.code == 0
    assert job.dead() == {POISON_LINE: "numerical_error"}
    deaths = job.deaths()
    assert deaths.keys() == {2}
    assert ["HwException" in death["error"] for death in deaths[2]] == [True]
    undisturbed = calm()
    assert (undisturbed.code, undisturbed.dead()) == (0, {})
    wanted = undisturbed.predictions()
    del wanted[POISON_LINE]
    assert job.predictions() == wanted


def test_a_row_that_hangs_is_given_up_among_other_faults(
    tmp_path: Path,
    folder: Path,
    calm: Callable[[], Ended],
    poison: dict[str, Any],
    start_job: StartJob,
) -> None:
    """First in company and then alone; the second hang begins with the interpreter held."""
    hangs = [
        {
            "kind": "hang",
            "at_run": CANARY_RUNS + 1,
            "hold_gil": holds,
            "once_file": str(tmp_path / f"hung {holds}"),
        }
        for holds in (False, True)
    ]
    job = start_job(folder, *ON_RAY, faults=(*hangs, failure(tmp_path), poison))()
    assert job.code == 0
    assert job.dead() == {1: "row_timeout", POISON_LINE: "numerical_error"}
    deaths = job.deaths()
    assert deaths.keys() == {1, 3}
    assert len(deaths[1]) == 2
    for death in deaths[1]:
        assert f"took longer than {ROW_TIMEOUT_S} s" in death["ended_by"]
    # Asked to give the device back, then killed where that takes too long.
    ends = {(death["signal"], death["exit_code"]) for death in deaths[1]}
    assert ends <= {(None, 143), ("SIGKILL", None)}
    assert "HwException" in deaths[3][0]["error"]
    wanted = calm().predictions()
    del wanted[1], wanted[POISON_LINE]
    assert job.predictions() == wanted


def test_a_pef_of_another_version_ends_the_job_with_what_to_do(
    folder: Path, start_job: StartJob
) -> None:
    """Exit 8, at the first session: no other node could load it."""
    job = start_job(folder, *ON_RAY, faults=({"kind": "pef_version_mismatch"},))()
    assert job.code == 8
    assert "PEF version mismatch" in job.stderr
    assert "compile the model again with the SambaFlow of the hosts that run it" in job.stderr
    assert not list(job.output.glob("_run/forensics/*"))


def test_a_weight_that_is_missing_ends_the_job_with_its_name(
    tmp_path: Path, tiny_artifact: Artifacts, start_job: StartJob
) -> None:
    """Exit 4, in an artifact whose every file is as its description says."""
    from safetensors.torch import load_file, save_file

    local = tiny_artifact("samba", "gpt2")
    files, url = tmp_path / "files", tmp_path / "artifact"
    files.mkdir()
    for name in local.artifact.files:
        (files / name).write_bytes(local.path(name).read_bytes())
    weights = load_file(files / "weights.safetensors")
    del weights["transformer.h.1.mlp.c_fc.weight"]
    save_file(weights, files / "weights.safetensors")
    publish_artifact(replace(local.artifact, files=folder_entries(files)), files, str(url))
    job = start_job(url, *ON_RAY)()
    assert job.code == 4
    assert "transformer.h.1.mlp.c_fc.weight" in job.stderr
