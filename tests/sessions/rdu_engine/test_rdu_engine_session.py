"""The rdu_engine session over the stand-in for the runtime."""

from __future__ import annotations

import importlib
import json
import shutil
import signal
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from rdu_batch.errors import ArtifactError, RowError, SessionBroken
from rdu_batch.sessions.artifact import LocalArtifact
from rdu_batch.sessions.artifact_store import folder_entries

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.slow
VOCAB_SIZE = 448
#: Runs at opening: three prefill graphs and decode.
NUM_PROBES = 4


def traffic() -> Any:
    return importlib.import_module("sambaflow.stand_in").TRAFFIC


def changed(local: LocalArtifact, folder: Path, **changes: Any) -> LocalArtifact:
    """An artifact described anew, after its files were changed."""
    return LocalArtifact(folder, replace(local.artifact, files=folder_entries(folder), **changes))


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("gpt2", {"activation_function": "gelu"}),
        pytest.param("llama", {}, marks=pytest.mark.all_only),
    ],
)
def test_greedy_tokens_are_those_of_a_plain_model(
    family: str,
    changes: dict[str, str],
    tiny_artifact: Callable[[str, str], LocalArtifact],
    tiny_checkpoint: Callable[[str], Path],
    open_engine: Callable[..., Any],
    prompt_of: Callable[[int], list[int]],
    assert_same_greedy_tokens: Callable[..., int],
) -> None:
    """GPT-2 with the exact GELU; prompts about each static length, and to the last position."""
    from transformers import AutoModelForCausalLM

    place = tiny_checkpoint(family)
    plain = AutoModelForCausalLM.from_pretrained(place, **changes).eval()
    session = open_engine(tiny_artifact("samba_cached", family))
    for length in (47, 1, 7, 17, 8, 9, 2):
        num_tokens = min(48 - length + 1, 6)
        assert assert_same_greedy_tokens(session, plain, [prompt_of(length)], num_tokens) == 0
    assert assert_same_greedy_tokens(session, plain, [prompt_of(3)], 46) == 0


def test_a_token_costs_one_run_and_one_row_of_logits(
    artifact: LocalArtifact,
    open_engine: Callable[..., Any],
    prompt_of: Callable[[int], list[int]],
    greedy: Callable[..., list[int]],
) -> None:
    """The cache stays on the device; inputs are ids, an index, and in decode a mask."""
    session = open_engine(artifact)
    assert traffic().num_runs == NUM_PROBES
    to_host, to_device = traffic().bytes_to_host, traffic().bytes_to_device
    greedy(session, prompt_of(9), 4)
    assert traffic().num_runs == NUM_PROBES + 4
    assert traffic().bytes_to_host - to_host == 4 * VOCAB_SIZE * 4
    assert traffic().bytes_to_device - to_device == 4 * (16 + 1) + 3 * 4 * (1 + 48 + 1)


def test_the_artifact_runs_without_what_compiled_it(
    artifact: LocalArtifact, open_engine: Callable[..., Any]
) -> None:
    """Nothing of SambaFlow's own modules is imported."""
    assert open_engine(artifact).info.kind == "rdu_engine"
    assert "sambaflow.samba" not in sys.modules


def test_info_says_that_there_are_no_chunks_and_which_lengths_there_are(
    artifact: LocalArtifact, open_engine: Callable[..., Any]
) -> None:
    """As a samba session of the same artifact."""
    info = open_engine(artifact).info
    assert (info.prefill_chunk, info.prefill_lengths, info.max_seq_length) == (1, (8, 16, 48), 48)


def test_a_process_may_open_several_sessions(
    artifact: LocalArtifact,
    open_engine: Callable[..., Any],
    prompt_of: Callable[[int], list[int]],
    greedy: Callable[..., list[int]],
) -> None:
    """Side by side, and each keeps its own row."""
    first, other = open_engine(artifact), open_engine(artifact)
    wanted = greedy(first, prompt_of(9), 3)
    step = first.prefill(prompt_of(9))
    other.prefill(prompt_of(20))
    assert [step.token_id, first.decode(step.token_id, 9).token_id] == wanted[:2]
    first.close()
    assert greedy(other, prompt_of(9), 3) == wanted


def test_logits_stay_when_the_next_run_overwrites_the_device_s_own(
    artifact: LocalArtifact, open_engine: Callable[..., Any], prompt_of: Callable[[int], list[int]]
) -> None:
    """The stand-in fills what it gave out with NaN."""
    session = open_engine(artifact)
    first = session.prefill(prompt_of(9), want_logits=True)
    kept = first.logits_1V.clone()
    session.decode(first.token_id, 9)
    assert first.logits_1V.equal(kept)


def test_a_device_that_fails_ends_the_worker(
    artifact: LocalArtifact,
    open_engine: Callable[..., Any],
    prompt_of: Callable[[int], list[int]],
    greedy: Callable[..., list[int]],
) -> None:
    """In the middle of a row, and for good."""
    fault = {"kind": "tile_fault", "at_run": NUM_PROBES + 3}
    session = open_engine(artifact, FAULTS=json.dumps(fault))
    assert len(greedy(session, prompt_of(9), 2)) == 2
    with pytest.raises(SessionBroken, match=r"RDU failed while running a row: TileFaultException"):
        session.decode(1, 10)
    with pytest.raises(ValueError, match="prefill"):
        session.decode(1, 10)
    with pytest.raises(SessionBroken):
        session.prefill(prompt_of(9))


def test_a_device_that_fails_at_the_start_ends_the_worker_not_the_job(
    artifact: LocalArtifact, open_engine: Callable[..., Any]
) -> None:
    """In the probe; another node may be sound."""
    with pytest.raises(SessionBroken, match=r"while opening a session: HwException"):
        open_engine(artifact, FAULTS=json.dumps({"kind": "hw_exception", "at_run": 2}))


def test_numbers_that_the_device_cannot_compute_end_the_row_alone(
    artifact: LocalArtifact,
    open_engine: Callable[..., Any],
    poison_id: int,
    prompt_of: Callable[[int], list[int]],
    greedy: Callable[..., list[int]],
) -> None:
    """In a prefill and in a decode; the next row has the tokens that it always had."""
    fault = {"kind": "numerical", "token_id": poison_id}
    session = open_engine(artifact, FAULTS=json.dumps(fault))
    wanted = greedy(session, prompt_of(9), 5)
    with pytest.raises(RowError) as caught:
        session.prefill([*prompt_of(9), poison_id])
    assert caught.value.reason == "numerical_error"
    session.prefill(prompt_of(9))
    with pytest.raises(RowError):
        session.decode(poison_id, 9)
    assert greedy(session, prompt_of(9), 5) == wanted


def test_a_pef_for_another_runtime_is_for_another_target(
    artifact: LocalArtifact, open_engine: Callable[..., Any]
) -> None:
    """Exit 8, as for any artifact that this cluster cannot load."""
    with pytest.raises(ArtifactError, match=r"compiled for another version.*PEF version mismatch"):
        open_engine(artifact, RUNTIME_VERSION="9.9.9")


def test_an_artifact_of_a_single_graph_is_refused(
    tiny_artifact: Callable[[str, str], LocalArtifact], open_engine: Callable[..., Any]
) -> None:
    """With what to compile, or what opens it."""
    with pytest.raises(
        ArtifactError,
        match=r"compiled with --graphs single.*--graphs cached`.*kind samba \(session",
    ):
        open_engine(tiny_artifact("samba", "gpt2"))


def test_a_pef_of_other_lengths_than_its_note_says_is_refused(
    tmp_path: Path, artifact: LocalArtifact, open_engine: Callable[..., Any]
) -> None:
    """Naming what is missing and what is there."""
    folder = tmp_path / "artifact"
    shutil.copytree(artifact.folder, folder)
    note = folder / "samba.json"
    note.write_text(json.dumps({**json.loads(note.read_text()), "prefill_lengths": [32, 48]}))
    said = r"has no schedule model_nocache_32_fwd; it has model_cache_48_fwd, model_nocache_16"
    with pytest.raises(ArtifactError, match=said):
        open_engine(changed(artifact, folder))


@pytest.mark.all_only
def test_a_pef_of_another_model_is_refused(
    tmp_path: Path,
    artifact: LocalArtifact,
    tiny_artifact: Callable[[str, str], LocalArtifact],
    open_engine: Callable[..., Any],
) -> None:
    """It asks for weights that the artifact has not."""
    folder = tmp_path / "artifact"
    shutil.copytree(artifact.folder, folder)
    shutil.copy(tiny_artifact("samba_cached", "llama").folder / "artifact.pef", folder)
    with pytest.raises(ArtifactError, match=r"PEF wants \d+ weights that the artifact does not"):
        open_engine(changed(artifact, folder))


def test_a_pef_of_another_vocabulary_is_refused_by_the_probe(
    artifact: LocalArtifact, open_engine: Callable[..., Any]
) -> None:
    """Outputs have a shape that nothing else tells."""
    other = replace(artifact, artifact=replace(artifact.artifact, vocab_size=449))
    said = r"model_nocache_8_fwd.*\(1, 1, 448\), wanted torch\.float32 \(1, 1, 449\)"
    with pytest.raises(ArtifactError, match=said):
        open_engine(other)


def test_sigterm_ends_the_process_as_an_exit_does(
    artifact: LocalArtifact, open_engine: Callable[..., Any]
) -> None:
    """So that the runtime's own end is run; a handler that is there already stays."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    open_engine(artifact)
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    with pytest.raises(SystemExit) as caught:
        signal.raise_signal(signal.SIGTERM)
    assert caught.value.code == 128 + signal.SIGTERM
