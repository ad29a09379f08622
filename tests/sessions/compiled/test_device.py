"""Which device graphs are for: what is refused where, by an injected description of the GPU."""

from __future__ import annotations

import platform
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from click.testing import CliRunner

from rdu_batch.cli.compile import compile_command
from rdu_batch.errors import ArtifactError, UsageError
from rdu_batch.sessions.artifact import Artifact, LocalArtifact, Target
from rdu_batch.sessions.compile_settings import CompileSettings
from rdu_batch.sessions.inductor.geometry import GraphSettings
from rdu_batch.sessions.inductor.options import inductor_options, operators_for
from rdu_batch.sessions.inductor.target import check_target, choose_gpu_arch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

H200 = Target(
    device="cuda",
    machine=platform.machine(),
    instruction_set="avx2",
    cpu_flags=("avx2",),
    torch_version=torch.__version__,
    gpu_arch="sm_90",
)
CPU_FLAGS = frozenset({"avx2"})


def check(target: Target, gpu_arch: str) -> None:
    """Whether a node with this GPU and a fitting processor may open it."""
    check_target(target, url="store/model", cpu_flags=CPU_FLAGS, gpu_arch=gpu_arch)


def test_an_artifact_for_a_gpu_is_accepted_where_there_is_such_a_gpu() -> None:
    """And one for cpu wherever; a GPU beside the processor changes nothing."""
    check(H200, "sm_90")
    for_cpu = replace(H200, device="cpu", gpu_arch="")
    check(for_cpu, "")
    check(for_cpu, "sm_90")


@pytest.mark.parametrize(
    ("gpu_arch", "said"),
    [
        ("", [r"cuda \(sm_90\)", "no GPU here", "compile ... --device cpu", r"workers\.gpus: 1"]),
        ("sm_80", ["sm_90", "GPU is sm_80", "compile ... --device cuda"]),
    ],
)
def test_another_gpu_or_none_is_refused_with_the_way_out(gpu_arch: str, said: list[str]) -> None:
    """What it is for, what is here, and what to type."""
    with pytest.raises(ArtifactError) as caught:
        check(H200, gpu_arch)
    assert caught.value.exit_code == 8
    for part in ["store/model", *said]:
        caught.match(part)


def test_a_torch_of_another_cuda_release_is_refused_for_a_gpu_only() -> None:
    """The package is bound to the libraries that torch was built with."""
    plain = torch.__version__.partition("+")[0]
    other = replace(H200, torch_version=f"{plain}+cu118")
    with pytest.raises(ArtifactError, match=r"\+cu118"):
        check(other, "sm_90")
    check(replace(other, device="cpu", gpu_arch=""), "")


def test_other_things_of_the_node_count_with_a_gpu_too() -> None:
    """The code that starts the kernels is the processor's."""
    with pytest.raises(ArtifactError, match="avx1024"):
        check(replace(H200, cpu_flags=("avx2", "avx1024")), "sm_90")
    with pytest.raises(ArtifactError, match="vax"):
        check(replace(H200, machine="vax"), "sm_90")


def test_a_device_that_is_not_known_is_refused() -> None:
    """By its name."""
    with pytest.raises(ArtifactError, match=r"device tpu.*--device cpu"):
        check(replace(H200, device="tpu"), "sm_90")


def test_the_architecture_is_that_of_this_machine() -> None:
    """For device cpu there is none; for cuda a GPU must be here."""
    assert choose_gpu_arch("cuda", "sm_90") == "sm_90"
    assert choose_gpu_arch("cpu", "sm_90") == ""
    with pytest.raises(ArtifactError, match=r"no GPU here.*--device cpu"):
        choose_gpu_arch("cuda", "")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weights": "int8"}, "--weights plain"),
        ({"kind": "eager"}, "kind eager"),
        ({"device": "tpu"}, "'tpu': wanted cpu or cuda"),
    ],
)
def test_settings_that_no_gpu_can_have_are_refused(changes: dict[str, str], said: str) -> None:
    """Before a model is looked for."""
    settings: dict[str, Any] = {"dtype": "bf16", "max_seq_length": 8, "device": "cuda"}
    with pytest.raises(UsageError, match=said):
        CompileSettings(**settings | changes)


def test_compile_for_a_gpu_without_one_ends_before_anything_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model is not even there, and nothing is written."""
    monkeypatch.setattr("rdu_batch.sessions.inductor.target.machine_gpu_arch", lambda: "")
    flags = ["--device=cuda", "--max_seq_length=8", f"--out={tmp_path / 'out'}"]
    with pytest.raises(ArtifactError, match="no GPU here"):
        CliRunner().invoke(compile_command, ["nowhere", *flags], catch_exceptions=False)
    assert not (tmp_path / "out").exists()


def test_artifact_json_says_the_architecture_only_where_there_is_one(
    tmp_path: Path, artifact_of: Callable[..., LocalArtifact]
) -> None:
    """So that artifacts for cpu keep the bytes, and the digests, that they have."""
    for_cpu = artifact_of(tmp_path).artifact
    assert b"gpu_arch" not in for_cpu.to_bytes()
    assert Artifact.from_bytes(for_cpu.to_bytes(), url="u").target == for_cpu.target
    for_gpu = replace(for_cpu, target=H200)
    assert Artifact.from_bytes(for_gpu.to_bytes(), url="u").target == H200


def test_graphs_for_a_gpu_get_none_of_the_settings_for_processors() -> None:
    """Their kernels lie inside the one library that a session loads."""
    settings = GraphSettings("bf16", 64, 16, 80, "avx2", {}, device="cuda")
    assert GraphSettings.from_argument(settings.to_argument()) == settings
    assert operators_for(settings) is None
    options = inductor_options("decode", settings)
    assert options["aot_inductor.embed_kernel_binary"] is True
    assert options["aot_inductor.package_constants_in_so"] is False
    assert not any(name.startswith(("cpp.", "realize")) for name in options)
    for_cpu = inductor_options("decode", replace(settings, device="cpu"))
    assert "aot_inductor.embed_kernel_binary" not in for_cpu
    assert for_cpu["aot_inductor.custom_ops_to_c_shims"]
