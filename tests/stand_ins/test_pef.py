"""The PEF: where it lies, when it is refused, and that the traced graph is the compiled one."""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch


def test_a_pef_lies_in_a_folder_of_its_name(program: ModuleType, tmp_path: Path) -> None:
    """<output folder>/<name>/<name>.pef, and compile returns that path."""
    pef = program.compiled_pef(tmp_path / "out", name="lenet-b32")
    assert Path(pef) == tmp_path / "out" / "lenet-b32" / "lenet-b32.pef"
    assert Path(pef).is_file()


def test_a_pef_has_a_default_name_and_folder(program: ModuleType, tmp_path: Path) -> None:
    """A time and the process, under ./out."""
    program.parse_app_args(["compile", "--inference"])
    pef = Path(program.samba.session.compile(program.converted_model(), program.trace_inputs()))
    assert pef.parent.parent == tmp_path / "out"
    assert re.fullmatch(rf"\d+_{os.getpid()}\.pef", pef.name)


def test_a_missing_pef_is_refused(program: ModuleType) -> None:
    """A path that holds nothing, relative ones included."""
    for path in ("/nowhere/tiny.pef", "out/tiny/absent.pef", ""):
        with pytest.raises(RuntimeError, match=r"PEF file.*no PEF"):
            program.utils.trace_graph(program.converted_model(), program.trace_inputs(), pef=path)


def test_a_damaged_pef_is_refused(program: ModuleType, pef: str) -> None:
    """Cut short, or changed by a byte."""
    whole = Path(pef).read_text()
    for damaged in (whole[: len(whole) // 2], whole.replace("wte", "wtf", 1), ""):
        Path(pef).write_text(damaged)
        with pytest.raises(RuntimeError, match=r"PEF file.*damaged"):
            program.traced(pef)


def test_a_pef_of_another_version_makes_no_session(
    program: ModuleType, pef: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The documented error of a PEF that the host's runtime does not know."""
    monkeypatch.setenv("SAMBAFLOW_STAND_IN_RUNTIME_VERSION", "9.9")
    wanted = "^Failed to Create Session on RDU: PEF version mismatch"
    with pytest.raises(RuntimeError, match=wanted):
        program.traced(pef)


def without_gelu_patch(program: ModuleType) -> Any:
    """A model whose activations are the stock ones."""
    model = program.patch_(program.stock_model())
    for block in model.transformer.h:
        block.mlp.act = torch.nn.GELU(approximate="tanh")
    return model


def without_addmm(program: ModuleType) -> Any:
    """A model with one layer of the stock form."""
    model = program.patch_(program.stock_model())
    layer = model.transformer.h[1].mlp.c_fc
    del layer.forward
    layer.weight = torch.nn.Parameter(layer.weight.data.t())
    return model


def without_directives(program: ModuleType) -> Any:
    """A patched model with one directive more."""
    model = program.patch_(program.stock_model())
    program.op_fusion(model.lm_head, "Head")
    return model


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda program: program.patch_(program.stock_model(num_layers=3)), "modules"),
        (without_gelu_patch, "calls: gelu"),
        (without_addmm, "parameters"),
        (without_directives, "directives"),
        (lambda program: program.patch_(program.stock_model()).bfloat16(), "parameters"),
    ],
)
def test_the_traced_graph_is_the_compiled_one(
    program: ModuleType, pef: str, make: Any, part: str
) -> None:
    """Another model, patch or dtype at run time is a mismatch, and the message says where."""
    model = make(program)
    program.samba.from_torch_model_(model)
    with pytest.raises(RuntimeError, match=f'"PEF mismatch" broken: .*pef: {part}'):
        program.utils.trace_graph(model, program.trace_inputs(), pef=pef)


def test_the_traced_inputs_are_the_compiled_ones(program: ModuleType, pef: str) -> None:
    """Another length is another graph."""
    with pytest.raises(RuntimeError, match=r"PEF mismatch.*inputs"):
        program.utils.trace_graph(program.converted_model(), program.trace_inputs(8), pef=pef)


def test_a_model_must_give_plain_tensors(program: ModuleType) -> None:
    """An unpatched head returns an object of transformers."""
    model = program.stock_model()
    program.samba.from_torch_model_(model)
    program.parse_app_args(["compile", "--inference"])
    ids = program.samba.from_torch_tensor(torch.zeros(1, 12).int(), name="input_ids")
    with pytest.raises(RuntimeError, match="forward returns a tuple of tensors"):
        program.samba.session.compile(model, (ids,))


def test_the_commands_arguments_agree_with_the_pef(program: ModuleType, pef: str) -> None:
    """Batch size and --inference are told twice, and alike."""
    for flags, wanted in ((["--inference", "-b", "2"], "--batch-size 2"), ([], "--inference")):
        program.parse_app_args(["run", *flags, "--pef", pef])
        with pytest.raises(RuntimeError, match=f"arguments agree with the PEF.*{wanted}"):
            program.utils.trace_graph(program.converted_model(), program.trace_inputs(), pef=pef)


def test_a_pef_for_inference_has_no_optimizer(program: ModuleType) -> None:
    """An optimizer is for training."""
    program.parse_app_args(["compile", "--inference"])
    with pytest.raises(RuntimeError, match=r"sections of the PEF.*optimizer"):
        program.samba.session.compile(
            program.converted_model(), program.trace_inputs(), torch.optim.SGD
        )


def test_a_pef_for_training_may_run_its_forward_section(
    program: ModuleType, tmp_path: Path
) -> None:
    """Compiled without --inference; the stand-in says plainly that it does not train."""
    program.parse_app_args(["compile", "--output-folder", str(tmp_path)])
    pef = program.samba.session.compile(program.converted_model(), program.trace_inputs())
    _, outputs = program.traced(pef)
    assert program.logits_SV(outputs).isfinite().all()
    with pytest.raises(NotImplementedError, match="stand-in runs 'fwd' alone"):
        program.step(outputs, section_types=None)
