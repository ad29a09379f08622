"""The compiled session: tokens, what it refuses, what it shares, and what it needs to start."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from rdu_batch.errors import ArtifactError, SessionBroken
from rdu_batch.sessions.artifact import LocalArtifact
from rdu_batch.sessions.artifact_store import fetch_artifact
from rdu_batch.sessions.eager import EagerSession
from rdu_batch.sessions.inductor.geometry import GraphSettings
from rdu_batch.sessions.inductor.kernels.build import build_kernels
from rdu_batch.sessions.inductor.session import InductorSession
from rdu_batch.sessions.inductor.target import (
    INSTRUCTION_SETS,
    check_target,
    choose_instruction_set,
)
from rdu_batch.sessions.inductor.weights import map_tensors, write_tensors

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.slow

FAMILIES = pytest.mark.parametrize("family", ["llama", "gpt2"])


def prompts_of(vocab_size: int, longest: int) -> list[list[int]]:
    """Twenty prompts of growing length."""
    return [
        [(31 * index * index + 17 * number + index) % vocab_size for index in range(length)]
        for number, length in enumerate(range(1, longest, max(1, longest // 20)))
    ][:20]


@FAMILIES
def test_fp32_greedy_tokens_are_those_of_transformers(
    family: str,
    tiny_artifact: Callable[[str, str], LocalArtifact],
    tiny_checkpoint: Callable[[str], Path],
    assert_same_greedy_tokens: Callable[..., int],
) -> None:
    """Against ``generate`` on the checkpoint itself."""
    plain = AutoModelForCausalLM.from_pretrained(tiny_checkpoint(family)).eval()
    session = InductorSession.open(tiny_artifact("inductor", family), threads=1)
    prompts = prompts_of(session.info.vocab_size, 40)
    assert len(prompts) == 20
    assert assert_same_greedy_tokens(session, plain, prompts, num_tokens=8) <= 2


@FAMILIES
def test_the_eager_session_opens_a_compiled_artifact(
    family: str, tiny_artifact: Callable[[str, str], LocalArtifact]
) -> None:
    """By undoing the layouts that the graphs want; its logits are the compiled ones."""
    local = tiny_artifact("inductor", family)
    assert ("transposed" in local.artifact.layouts.values()) == (family == "gpt2")
    ids = prompts_of(local.artifact.vocab_size, 40)[-1]
    eager = EagerSession.open(local, threads=1).prefill(ids, want_logits=True)
    compiled = InductorSession.open(local, threads=1).prefill(ids, want_logits=True)
    assert eager.logits_1V is not None
    assert compiled.logits_1V is not None
    torch.testing.assert_close(compiled.logits_1V, eager.logits_1V, rtol=1e-4, atol=1e-4)


def test_the_lowest_id_wins_a_tie(
    tiny_artifact: Callable[[str, str], LocalArtifact], tmp_path: Path
) -> None:
    """With an output head of few different rows, every best logit is a tie."""
    local = tiny_artifact("inductor", "llama")
    shutil.copytree(local.folder, tmp_path / "tied")
    weights = {
        name: tensor.clone()
        for name, tensor in map_tensors(local.path("weights.safetensors")).items()
    }
    head = weights["lm_head.weight"]
    head[:] = torch.cat([head[:7]] * (len(head) // 7 + 1))[: len(head)]
    write_tensors(tmp_path / "tied" / "weights.safetensors", weights)
    session = InductorSession.open(LocalArtifact(tmp_path / "tied", local.artifact), threads=1)
    for length in (1, 15, 17, 30):
        steps = [session.prefill(list(range(length)), want_logits=True)]
        steps.append(session.decode(3, length, want_logits=True))
        for step in steps:
            assert step.logits_1V is not None
            logits = step.logits_1V[0].tolist()
            assert logits.count(max(logits)) > 1
            assert step.token_id == logits.index(max(logits)) < 7


@pytest.mark.parametrize("name", ["decode.pt2", "prefill.pt2", "weights.safetensors"])
def test_native_code_is_not_loaded_from_a_tampered_artifact(
    name: str, tiny_artifact: Callable[[str, str], LocalArtifact], tmp_path: Path
) -> None:
    """One changed byte in any file."""
    shutil.copytree(tiny_artifact("inductor", "llama").folder, tmp_path / "copy")
    path = tmp_path / "copy" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=re.escape(name)):
        fetch_artifact(str(tmp_path / "copy"))


def test_a_machine_without_the_instruction_set_is_refused(
    tiny_artifact: Callable[[str, str], LocalArtifact],
) -> None:
    """By name, before the package is opened."""
    local = tiny_artifact("inductor", "llama")
    target = replace(local.artifact.target, cpu_flags=("avx2", "avx1024"))
    other = LocalArtifact(local.folder / "nowhere", replace(local.artifact, target=target))
    with pytest.raises(ArtifactError, match="avx1024"):
        InductorSession.open(other, threads=1)
    v4 = INSTRUCTION_SETS[0]
    old = frozenset(INSTRUCTION_SETS[1].cpu_flags)
    with pytest.raises(ArtifactError, match="avx512f"):
        check_target(replace(target, cpu_flags=v4.cpu_flags), url="here", cpu_flags=old)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"torch_version": "2.1.0"}, r"2\.1\.0"),
        ({"machine": "vax"}, "vax"),
        ({"device": "cuda"}, "cuda"),
    ],
)
def test_another_torch_or_machine_is_refused(
    change: dict[str, str], said: str, tiny_artifact: Callable[[str, str], LocalArtifact]
) -> None:
    """The package is bound to both."""
    local = tiny_artifact("inductor", "llama")
    artifact = replace(local.artifact, target=replace(local.artifact.target, **change))
    with pytest.raises(ArtifactError, match=said):
        InductorSession.open(LocalArtifact(local.folder, artifact), threads=1)


def test_an_artifact_of_fixed_threads_is_refused_with_others(
    tiny_artifact: Callable[[str, str], LocalArtifact],
) -> None:
    """Both numbers are named."""
    local = tiny_artifact("inductor", "llama")
    fixed = LocalArtifact(local.folder, replace(local.artifact, threads=3))
    with pytest.raises(ArtifactError, match=r"3 threads.*asked for 1"):
        InductorSession.open(fixed, threads=1)


def test_a_failing_graph_breaks_the_session(
    tiny_artifact: Callable[[str, str], LocalArtifact],
) -> None:
    """As SessionBroken, which ends the worker."""
    session = InductorSession.open(tiny_artifact("inductor", "llama"), threads=1)
    step = session.prefill([1, 2, 3])
    session._keys_values = session._keys_values[:-1]
    with pytest.raises(SessionBroken):
        session.decode(step.token_id, 3)


def test_weights_that_are_not_finite_break_the_session(
    tiny_artifact: Callable[[str, str], LocalArtifact], tmp_path: Path
) -> None:
    """In both kinds: arg max would take the NaN for the best token, silently."""
    local = tiny_artifact("inductor", "llama")
    shutil.copytree(local.folder, tmp_path / "broken")
    weights = {
        name: tensor.clone()
        for name, tensor in map_tensors(local.path("weights.safetensors")).items()
    }
    weights["lm_head.weight"][300] = float("nan")
    write_tensors(tmp_path / "broken" / "weights.safetensors", weights)
    broken = LocalArtifact(tmp_path / "broken", local.artifact)
    for kind in (InductorSession, EagerSession):
        with pytest.raises(SessionBroken, match="highest logit is nan"):
            kind.open(broken, threads=1).prefill([1, 2, 3])


class CountedGraph:
    """A compiled graph that notes how often it runs."""

    def __init__(self, graph: Any) -> None:
        self.graph, self.num_runs = graph, 0

    def run(self, inputs: list[Any]) -> Any:
        self.num_runs += 1
        return self.graph.run(inputs)


def test_chunks_that_two_prompts_share_are_computed_once(
    tiny_artifact: Callable[[str, str], LocalArtifact],
) -> None:
    """Two shared chunks of three: the second prompt runs one, and its logits are a fresh one's."""
    session = InductorSession.open(tiny_artifact("inductor", "llama"), threads=1)
    counted = session._prefill_graph = CountedGraph(session._prefill_graph)
    shared = list(range(32))
    session.prefill([*shared, 7, 8])
    assert counted.num_runs == 3
    kept = session.prefill([*shared, 9, 10, 11], want_logits=True)
    assert counted.num_runs == 4
    session.reset()
    fresh = session.prefill([*shared, 9, 10, 11], want_logits=True)
    assert counted.num_runs == 7
    assert kept.logits_1V is not None
    assert fresh.logits_1V is not None
    assert kept.logits_1V.equal(fresh.logits_1V)


SHOW_WEIGHTS = """
import sys
from pathlib import Path
from rdu_batch.sessions.artifact_store import fetch_artifact
from rdu_batch.sessions.inductor.session import InductorSession
local = fetch_artifact(sys.argv[1])
session = InductorSession.open(local, threads=1)
step = session.prefill([1, 2, 3])
step = session.decode(step.token_id, 3)
path = str(local.path("weights.safetensors"))
print(step.token_id)
print([line.split()[1] for line in open("/proc/self/maps") if path in line])
print(sum(name.startswith(("torch._inductor", "transformers")) for name in sys.modules))
"""


def test_sessions_share_the_weights_file_and_start_without_a_compiler(
    tiny_artifact: Callable[[str, str], LocalArtifact], tmp_path: Path
) -> None:
    """With an empty PATH, no compiler cache, and neither Inductor nor transformers imported."""
    local = tiny_artifact("inductor", "gpt2")
    environment = {
        **os.environ,
        "PATH": "",
        "CXX": "/nowhere/g++",
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, "-c", SHOW_WEIGHTS, str(local.folder)]
    said = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    token_id, mappings, num_imported = said.stdout.split("\n")[:3]
    session = InductorSession.open(local, threads=1)
    step = session.prefill([1, 2, 3])
    assert int(token_id) == session.decode(step.token_id, 3).token_id
    assert mappings == "['r--s']"
    assert num_imported == "0"
    assert list(tmp_path.iterdir()) == []


def test_two_sessions_in_one_process_read_the_same_pages(
    tiny_artifact: Callable[[str, str], LocalArtifact],
) -> None:
    """Each maps the same file, shared; neither holds a copy, and both answer alike."""
    local = tiny_artifact("inductor", "llama")
    path = str(local.path("weights.safetensors"))
    sessions = [InductorSession.open(local, threads=1) for _ in range(2)]
    tokens = [session.prefill([5, 6, 7]).token_id for session in sessions]
    assert tokens[0] == tokens[1]
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    found = [entry for entry in maps if entry[-1] == path]
    assert len(found) >= 2
    assert {entry[1] for entry in found} == {"r--s"}
    assert len({entry[4] for entry in found}) == 1
    for session in sessions:
        session.close()


OPEN_AND_BE_KILLED = """
import os, signal, sys
from rdu_batch.sessions.artifact_store import fetch_artifact
from rdu_batch.sessions.inductor.session import InductorSession
session = InductorSession.open(fetch_artifact(sys.argv[1]), threads=1)
step = session.prefill([1, 2, 3])
print(session.decode(step.token_id, 3).token_id, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_session_leaves_nothing_in_the_temporary_folder(
    tiny_artifact: Callable[[str, str], LocalArtifact], tmp_path: Path
) -> None:
    """Its native code is unpacked there to be loaded, and is gone once it is."""
    local = tiny_artifact("inductor", "llama")
    (tmp_path / "mine").write_text("stays")
    environment = {
        **os.environ,
        "TMPDIR": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, "-c", OPEN_AND_BE_KILLED, str(local.folder)]
    said = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert said.returncode == -9
    assert int(said.stdout) >= 0
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


COMPARE_WITH_EAGER = """
import sys
import torch
from rdu_batch.sessions.artifact_store import fetch_artifact
from rdu_batch.sessions.eager import EagerSession
from rdu_batch.sessions.inductor.session import InductorSession
local = fetch_artifact(sys.argv[1])
compiled, eager = InductorSession.open(local, threads=1), EagerSession.open(local, threads=1)
for length in (1, 31, 32, 33, 38, 39):
    ids = [(31 * index * index + length) % 448 for index in range(length)]
    for session in (compiled, eager):
        steps = [session.prefill(ids, want_logits=True)]
        steps += [session.decode(at, at, want_logits=True) for at in range(length, 40)]
        logits = torch.cat([step.logits_1V for step in steps])
        if session is compiled:
            found = logits
    torch.testing.assert_close(found, logits, rtol=1e-4, atol=1e-4)
"""


@pytest.mark.all_only
def test_a_length_that_is_no_multiple_of_the_chunk_computes_what_eager_does(
    tmp_path: Path,
    save_tokenizer: Callable[..., None],
    compiled_from: Callable[..., LocalArtifact],
) -> None:
    """Up to the model's last position, and within the shapes that the graphs were exported for."""
    torch.manual_seed(7)
    config = GPT2Config(
        vocab_size=448, n_embd=32, n_layer=1, n_head=4, n_positions=40, initializer_range=0.3
    )
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    local = compiled_from(tmp_path, dtype="fp32", max_seq_length=40, prefill_chunk=16)
    environment = {
        **os.environ,
        "AOTI_RUNTIME_CHECK_INPUTS": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, "-c", COMPARE_WITH_EAGER, str(local.folder)]
    ended = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def disassembly_of(package: Path, folder: Path) -> str:
    """Instructions of the native code in a package."""
    with zipfile.ZipFile(package) as content:
        libraries = [name for name in content.namelist() if name.endswith(".so")]
        assert len(libraries) == 1
        return _disassembled(Path(content.extract(libraries[0], folder)))


def _disassembled(library: Path) -> str:
    command = ["objdump", "-d", str(library)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.skipif(shutil.which("objdump") is None, reason="objdump is not installed")
@pytest.mark.all_only
def test_the_machine_code_keeps_to_the_pinned_instruction_set(
    tiny_artifact: Callable[[str, str], LocalArtifact], tmp_path: Path
) -> None:
    """Whatever this processor could do: read from the code itself."""
    local = tiny_artifact("inductor", "llama")
    settings = GraphSettings(
        dtype="fp32",
        max_seq_length=local.artifact.max_seq_length,
        prefill_chunk=local.artifact.prefill_chunk,
        cache_length=local.artifact.cache_length,
        instruction_set="avx2",
        layouts=local.artifact.layouts,
    )
    shutil.copytree(local.folder, tmp_path / "avx2")
    (tmp_path / "avx2" / "decode.pt2").unlink()
    kernels = tmp_path / "avx2" / "kernels.so"
    kernels.unlink()
    build_kernels(kernels, choose_instruction_set("avx2"))
    subprocess.run(
        [
            sys.executable,
            "-m",
            "rdu_batch.sessions.inductor.export",
            str(tmp_path / "avx2"),
            "decode",
            settings.to_argument(),
        ],
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    small = disassembly_of(tmp_path / "avx2" / "decode.pt2", tmp_path / "x")
    assert "%ymm" in small
    assert "%zmm" not in small
    assert "%zmm" not in _disassembled(kernels)
    if local.artifact.target.instruction_set == "avx512":
        large = disassembly_of(local.path("decode.pt2"), tmp_path / "y")
        assert "%zmm" in large
        assert not re.search(r"\bv(cvtne2?ps2bf16|dpbf16ps|pdpbusd)", large)


def test_the_package_holds_no_weights(
    tiny_artifact: Callable[[str, str], LocalArtifact],
) -> None:
    """No 32 bytes of the output head occur in it."""
    local = tiny_artifact("inductor", "llama")
    head = map_tensors(local.path("weights.safetensors"))["lm_head.weight"]
    needle = head.reshape(-1)[:8].numpy().tobytes()
    assert needle in local.path("weights.safetensors").read_bytes()
    with zipfile.ZipFile(local.path("decode.pt2")) as content:
        assert not any(needle in content.read(name) for name in content.namelist())
