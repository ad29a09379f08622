"""What is said where there is no SambaFlow: on every machine but an RDU's."""

from __future__ import annotations

import importlib.util
import json
from typing import TYPE_CHECKING

import pytest

from rdu_batch.cli.main import run
from rdu_batch.errors import ArtifactError, UsageError
from rdu_batch.sessions.compile_settings import CompileSettings
from rdu_batch.sessions.registry import open_session

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rdu_batch.sessions.artifact import LocalArtifact

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("sambaflow") is not None, reason="SambaFlow, or its stand-in, is here"
)


def test_opening_a_session_says_what_to_install_and_what_works(
    tmp_path: Path, artifact_of: Callable[..., LocalArtifact]
) -> None:
    """Before anything of the artifact is looked at."""
    with pytest.raises(ArtifactError) as caught:
        open_session("samba", artifact_of(tmp_path, kind="samba"), threads=1)
    said = str(caught.value)
    for part in ("SambaFlow", "No module named 'sambaflow'", "sambanova-runtime", "inductor",
                 "eager", "fake"):  # fmt: skip
        assert part in said
    assert caught.value.exit_code == 8


def test_compiling_for_the_rdu_ends_with_exit_8(
    tmp_path: Path, tiny_checkpoint: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """And leaves nothing behind."""
    out = tmp_path / "out"
    code = run(
        [
            *("compile", str(tiny_checkpoint("gpt2")), "--kind", "samba"),
            *("--out", str(out), "--max_seq_length", "48"),
        ]
    )
    assert code == 8
    said = capsys.readouterr().err
    assert "sambaflow" in said
    assert "`--kind inductor`" in said
    assert "opens any artifact" not in said
    assert not out.exists()


def test_a_plan_of_a_job_for_the_rdu_needs_no_rdu(
    tmp_path: Path, artifact_of: Callable[..., LocalArtifact]
) -> None:
    """The machine that submits a job seldom has one."""
    folder = tmp_path / "artifact"
    folder.mkdir()
    (folder / "artifact.json").write_bytes(artifact_of(folder, kind="samba").artifact.to_bytes())
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"text": "one"}) + "\n")
    job = tmp_path / "job.yaml"
    job.write_text(
        f"version: 1\nname: rdu\ninput: {{urls: ['{rows}']}}\nprompt: {{field: text}}\n"
        f"session: {{kind: samba, artifact: '{folder}'}}\noutput: {{url: '{tmp_path}/out'}}\n"
    )
    assert run(["plan", str(job)]) == 0


@pytest.mark.parametrize("changes", [{"inference": False}, {"samba_flags": ("--arch", "sn20")}])
@pytest.mark.parametrize("kind", ["inductor", "eager"])
def test_other_kinds_refuse_what_only_sambaflow_understands(
    kind: str, changes: dict[str, object]
) -> None:
    """Rather than ignore it."""
    with pytest.raises(UsageError, match=f"kind {kind}: .*--kind samba"):
        CompileSettings(dtype="fp32", max_seq_length=48, kind=kind, **changes)  # type: ignore[arg-type]


def test_the_rdu_takes_neither_int8_weights_nor_another_device() -> None:
    """Both belong to the inductor kind."""
    for changes in ({"weights": "int8"}, {"device": "cuda"}):
        with pytest.raises(UsageError, match="of kind samba: only kind inductor"):
            CompileSettings(dtype="fp32", max_seq_length=48, kind="samba", **changes)  # type: ignore[arg-type]
