"""The samba session over the stand-in for SambaFlow, each in a process of its own."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest
import torch

from rdu_batch.errors import ArtifactError, RowError, SessionBroken
from rdu_batch.sessions.artifact_store import fetch_artifact, verify_artifact
from rdu_batch.sessions.registry import open_session
from rdu_batch.sessions.samba.pef import PefNote, pef_name

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rdu_batch.sessions.artifact import LocalArtifact

pytestmark = pytest.mark.slow
FAULTS = "SAMBAFLOW_STAND_IN_FAULTS"
PROMPT = [9, 200, 31, 77, 5, 410, 18]
#: What ``artifact`` is compiled to.
GRAPHS = "samba"


def test_greedy_tokens_are_those_of_a_plain_model_with_the_exact_gelu(
    session: Any, exact_gpt2: Any, assert_same_greedy_tokens: Callable[..., int]
) -> None:
    """From the shortest prompt to the longest, and up to the last position."""
    for prompt_ids, num_tokens in ((PROMPT, 41), ([1], 12), (list(range(300, 347)), 1)):
        assert assert_same_greedy_tokens(session, exact_gpt2, [prompt_ids], num_tokens) == 0
    logits_1V = session.prefill(PROMPT, want_logits=True).logits_1V
    with torch.no_grad():
        wanted_1V = exact_gpt2(torch.tensor([PROMPT])).logits[:, -1]
    torch.testing.assert_close(logits_1V, wanted_1V, atol=1e-4, rtol=1e-4)


def test_weights_are_sent_after_the_trace_and_each_token_is_one_run(
    session: Any, events: Path, greedy: Callable[..., list[int]]
) -> None:
    """``trace_graph`` starts the session; the checkpoint follows; then a run and a read a token."""

    def names() -> list[str]:
        return [json.loads(line)["event"] for line in events.read_text().splitlines()]

    assert names()[:4] == ["session", "weights_to_device", "trace_graph", "weights_to_device"]
    num_before = len(names())
    greedy(session, PROMPT, 3)
    assert names()[num_before:] == ["run", "to_host"] * 3


def test_logits_stay_when_the_next_run_overwrites_the_device_s_own(session: Any) -> None:
    """The first step as it was, and as it is after another one."""
    first = session.prefill(PROMPT, want_logits=True)
    session.decode(first.token_id, len(PROMPT))
    assert session.again().logits_1V.equal(first.logits_1V)


def test_numbers_that_the_device_cannot_compute_end_the_row_alone(
    session: Any, greedy: Callable[..., list[int]], poison_id: int
) -> None:
    """The next row has the tokens that it always had."""
    wanted = greedy(session, PROMPT, 5)
    with pytest.raises(RowError) as caught:
        session.prefill([*PROMPT, poison_id])
    assert caught.value.reason == "numerical_error"
    with pytest.raises(ValueError, match="prefill"):
        session.decode(1, len(PROMPT) + 1)
    assert greedy(session, PROMPT, 5) == wanted


@pytest.mark.all_only
def test_a_device_that_fails_breaks_the_session_and_its_process_has_no_other(
    artifact: LocalArtifact, open_on_stand_in: Callable[..., Any], greedy: Callable[..., list[int]]
) -> None:
    """In the middle of a row; SambaFlow has one session a process, closed or not."""
    fault = json.dumps({"kind": "hw_exception", "at_run": 3})
    session = open_on_stand_in(artifact, **{FAULTS: fault})
    assert len(greedy(session, PROMPT, 2)) == 2
    with pytest.raises(SessionBroken, match="the RDU failed while running a row: HwException"):
        session.decode(1, len(PROMPT) + 1)
    session.close()
    with pytest.raises(SessionBroken, match="this process has opened its one session"):
        session.open()


@pytest.mark.all_only
def test_logits_of_a_device_that_gives_bf16_are_float32_on_the_host(
    artifact: LocalArtifact, open_on_stand_in: Callable[..., Any]
) -> None:
    """Whichever of the two a PEF gives back is not documented."""
    session = open_on_stand_in(artifact, SAMBAFLOW_STAND_IN_LOGITS_DTYPE="bfloat16")
    logits_1V = session.prefill(PROMPT, want_logits=True).logits_1V
    assert logits_1V.dtype == torch.float32
    assert logits_1V.equal(logits_1V.bfloat16().float())


@pytest.mark.all_only
def test_a_pef_that_was_compiled_for_training_runs_its_forward_section(
    tmp_path: Path,
    tiny_checkpoint: Callable[[str], Path],
    compile_on_stand_in: Callable[..., None],
    open_on_stand_in: Callable[..., Any],
    exact_gpt2: Any,
    assert_same_greedy_tokens: Callable[..., int],
) -> None:
    """The tutorial says that such a PEF can run inference, too."""
    url = str(tmp_path / "training")
    compile_on_stand_in(tiny_checkpoint("gpt2"), url, "--no-inference")
    local = fetch_artifact(url)
    assert not PefNote.read(local).inference
    session = open_on_stand_in(local)
    assert assert_same_greedy_tokens(session, exact_gpt2, [PROMPT], 4) == 0


def test_sigterm_ends_the_process_as_an_exit_does(
    artifact: LocalArtifact, open_on_stand_in: Callable[..., Any]
) -> None:
    """So that SambaFlow's own end of the runtime is run."""
    session = open_on_stand_in(artifact)
    session.process.send_signal(signal.SIGTERM)
    assert session.process.wait(timeout=30) == 128 + signal.SIGTERM


@pytest.mark.all_only
def test_a_pef_for_another_runtime_is_for_another_target(
    artifact: LocalArtifact, open_on_stand_in: Callable[..., Any]
) -> None:
    """Exit 8, as for any artifact that this cluster cannot load."""
    with pytest.raises(ArtifactError, match=r"compiled for another version.*PEF version mismatch"):
        open_on_stand_in(artifact, SAMBAFLOW_STAND_IN_RUNTIME_VERSION="9.9.9")


def test_the_artifact_is_the_tutorials_folder_with_the_model_beside_the_pef(
    artifact: LocalArtifact,
) -> None:
    """The PEF has the folder's name; weights lie as the checkpoint's, so eager opens it, too."""
    verify_artifact(artifact)
    assert (artifact.folder / "artifact.pef").is_file()
    note = PefNote.read(artifact)
    assert (note.pef, note.inference, note.max_seq_length) == ("artifact.pef", True, 48)
    assert note.sambaflow_version
    assert (artifact.artifact.kind, artifact.artifact.target.device) == ("samba", "rdu")
    assert set(artifact.artifact.layouts) == {"lm_head.weight"}
    assert open_session("eager", artifact, threads=1).prefill(PROMPT).token_id >= 0


@pytest.mark.all_only
def test_compiling_the_same_again_does_nothing_and_another_way_is_refused(
    artifact: LocalArtifact,
    tiny_checkpoint: Callable[[str], Path],
    compile_on_stand_in: Callable[..., None],
) -> None:
    """What SambaFlow is told decides the artifact."""
    url = str(artifact.folder)
    compile_on_stand_in(tiny_checkpoint("gpt2"), url)
    assert fetch_artifact(url).artifact.digest == artifact.artifact.digest
    with pytest.raises(AssertionError, match="holds another artifact"):
        compile_on_stand_in(tiny_checkpoint("gpt2"), url, "--no-inference")


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("s3://models/gpt2-1x1024/", "gpt2-1x1024"),
        ("out/inference", "inference"),
        ("memory://a b/ü", "model"),
        ("/", "model"),
    ],
)
def test_a_pef_has_the_name_of_its_folder(url: str, name: str) -> None:
    """As far as that is a name of a file everywhere."""
    assert pef_name(url) == name
