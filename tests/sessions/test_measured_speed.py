"""Speeds that ``compile`` leaves beside an artifact: by a clock of our own, and of a tiny model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from rdu_batch.cli.main import run
from rdu_batch.errors import ArtifactError
from rdu_batch.sessions import registry
from rdu_batch.sessions.artifact_store import read_artifact
from rdu_batch.sessions.door import SessionInfo, Step
from rdu_batch.sessions.measured_speed import MEASURED_FILE, measure_speed, read_speed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rdu_batch.sessions.artifact import LocalArtifact


@dataclass
class ClockedSession:
    """Takes time by a clock that only it moves: the first row is slow, each later one slower."""

    info: SessionInfo
    now_s: float = 0.0
    num_rows: int = 0
    num_decodes: int = 0
    is_closed: bool = False

    def prefill(self, input_ids_1S: Sequence[int], *, want_logits: bool = False) -> Step:
        self.info.check_prompt(input_ids_1S)
        self.num_rows += 1
        self.now_s += 100 if self.num_rows == 1 else 0.01 * self.num_rows * len(input_ids_1S)
        return Step(1)

    def decode(self, token_id: int, position: int, *, want_logits: bool = False) -> Step:
        assert position < self.info.max_seq_length
        self.num_decodes += 1
        self.now_s += 0.5 * self.num_rows
        return Step(1)

    def close(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize("max_seq_length", [2, 3, 48, 4096])
def test_rates_are_those_of_the_slowest_and_fastest_row_after_the_first(
    tmp_path: Path,
    artifact_of: Callable[..., LocalArtifact],
    monkeypatch: pytest.MonkeyPatch,
    max_seq_length: int,
) -> None:
    """Three rows, as each takes longer than the budget; never past the last position."""
    session = ClockedSession(SessionInfo("eager", max_seq_length, 1, 50, "fp32", 1))
    monkeypatch.setattr(registry, "open_session", lambda *_args, **_options: session)
    speed = measure_speed(artifact_of(tmp_path, kind="eager"), now_s=lambda: session.now_s)
    assert speed is not None
    assert speed.prefill_tokens_per_s == pytest.approx((100 / 3, 50))
    assert speed.decode_tokens_per_s == pytest.approx((2 / 3, 1))
    assert (session.num_rows, session.is_closed) == (3, True)
    assert session.num_decodes == 3 * (1 if max_seq_length == 2 else 2)


def test_what_cannot_run_here_has_no_speed_and_is_no_error(
    tmp_path: Path, artifact_of: Callable[..., LocalArtifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other devices, no weights, another machine."""
    opened: list[str] = []

    def refuse(kind: str, *_args: Any, **_options: Any) -> None:
        opened.append(kind)
        raise ArtifactError("for another machine")

    monkeypatch.setattr(registry, "open_session", refuse)
    assert measure_speed(artifact_of(tmp_path, kind="samba")) is None
    assert measure_speed(artifact_of(tmp_path, has_weights=False)) is None
    assert opened == []
    assert measure_speed(artifact_of(tmp_path, kind="inductor")) is None
    assert opened == ["inductor"]


def test_an_artifact_without_a_measure_has_none(tmp_path: Path) -> None:
    """Nor one with a damaged file."""
    assert read_speed(str(tmp_path)) is None
    assert read_speed(str(tmp_path / "nowhere")) is None
    (tmp_path / MEASURED_FILE).write_text("{")
    assert read_speed(str(tmp_path)) is None


def test_a_compiled_model_is_measured_and_its_job_predicted(
    tmp_path: Path,
    tiny_artifact: Callable[[str, str], LocalArtifact],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The measure is no part of the artifact; plan and run both predict by it."""
    local = tiny_artifact("eager", "gpt2")
    url = local.artifact.url
    speed = read_speed(url)
    assert speed is not None
    assert speed.threads == 1
    assert MEASURED_FILE not in read_artifact(url).files
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": f"one two {n}"}) + "\n" for n in range(9)))
    job = tmp_path / "job.yaml"
    job.write_text(
        f"version: 1\nname: tiny\ninput: {{urls: ['{rows}']}}\nprompt: {{field: text}}\n"
        f"session: {{kind: eager, artifact: '{url}'}}\ngeneration: {{max_new_tokens: 3}}\n"
        f"output: {{url: '{tmp_path}/out'}}\nworkers: {{count: 2}}\n"
    )
    assert run(["plan", str(job)]) == 0
    planned = json.loads(capsys.readouterr().out.splitlines()[-1])["prediction"]
    assert [one["workers"] for one in planned["runs"]] == [1, 2]
    assert planned["speed"] == speed.to_json()
    assert run(["run", str(job), "--executor", "inline"]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    # Every row was counted, so what was predicted of its tokens is what the run found.
    assert planned["prompt_tokens"] == [summary["prompt_tokens"]] * 2
    low, high = planned["generated_tokens"]
    assert low <= summary["generated_tokens"] <= high
    assert summary["predicted_wall_s"] == planned["runs"][0]["wall_s"]
