"""The order of calls, and the weights that a run uses."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch


def test_a_model_is_converted_before_it_is_compiled(program: ModuleType, tmp_path: Path) -> None:
    """Without from_torch_model_ there is nothing to trace."""
    program.parse_app_args(["compile", "--inference", "--output-folder", str(tmp_path)])
    with pytest.raises(RuntimeError, match=r"order of calls.*never converted"):
        program.samba.session.compile(program.patch_(program.stock_model()), program.trace_inputs())


def test_a_model_is_converted_before_it_is_traced(program: ModuleType, pef: str) -> None:
    """The same at run time."""
    with pytest.raises(RuntimeError, match=r"order of calls.*never converted"):
        program.utils.trace_graph(
            program.patch_(program.stock_model()), program.trace_inputs(), pef=pef
        )


def test_a_model_is_converted_once(program: ModuleType) -> None:
    """A second conversion is refused."""
    with pytest.raises(RuntimeError, match=r"order of calls.*twice"):
        program.samba.from_torch_model_(program.converted_model())


def test_a_directive_comes_before_the_conversion(program: ModuleType) -> None:
    """op_fusion is part of the patch, and the patch comes first."""
    model = program.converted_model()
    with pytest.raises(RuntimeError, match="patch before from_torch_model_"):
        program.op_fusion(model.transformer.h[0], "Encoder")


def test_parameters_are_not_replaced_after_the_conversion(program: ModuleType, pef: str) -> None:
    """A patch that comes too late makes parameters that the device does not know."""
    model = program.converted_model()
    layer = model.transformer.h[0].mlp.c_fc
    layer.weight = torch.nn.Parameter(layer.weight.data)
    with pytest.raises(RuntimeError, match=r"patch before from_torch_model_.*mlp.c_fc.weight"):
        program.utils.trace_graph(model, program.trace_inputs(), pef=pef)


def test_arguments_are_parsed_before_a_compile(program: ModuleType) -> None:
    """The command line says where the PEF goes and what for."""
    with pytest.raises(RuntimeError, match=r"order of calls.*parse_app_args"):
        program.samba.session.compile(program.converted_model(), program.trace_inputs())


def test_a_run_comes_after_trace_graph(program: ModuleType, pef: str) -> None:
    """A compile alone gives no session."""
    with pytest.raises(RuntimeError, match=r"order of calls.*before trace_graph"):
        program.samba.session.run(program.trace_inputs(), section_types=["fwd"])


def test_a_process_has_one_session(program: ModuleType, pef: str, tmp_path: Path) -> None:
    """A second PEF in the process is refused, and so is the same again."""
    second = program.compiled_pef(tmp_path, name="second")
    program.traced(pef)
    with pytest.raises(RuntimeError, match=r"one session per process.*second\.pef"):
        program.traced(second)
    with pytest.raises(RuntimeError, match="one session per process"):
        program.traced(pef)


def test_weights_count_as_last_transferred(program: ModuleType, pef: str) -> None:
    """A load changes nothing until to_rdu, and then all."""
    model, outputs = program.traced(pef)
    before_SV = program.logits_SV(outputs)
    other = program.patch_(program.stock_model(seed=1)).state_dict()
    model.load_state_dict(other)
    assert torch.equal(program.logits_SV(outputs), before_SV)
    program.samba.session.to_rdu(model)
    wanted_SV = program.reference_logits_SV(program.PROMPT, seed=1)
    torch.testing.assert_close(program.logits_SV(outputs), wanted_SV)


def test_a_checkpoint_may_be_loaded_before_the_trace(program: ModuleType, pef: str) -> None:
    """LeNet's order: the trace transfers what the model holds then."""
    model = program.converted_model()
    model.load_state_dict(program.patch_(program.stock_model(seed=1)).state_dict())
    program.samba.session.to_rdu(model)
    outputs = program.utils.trace_graph(model, program.trace_inputs(), pef=pef)
    wanted_SV = program.reference_logits_SV(program.PROMPT, seed=1)
    torch.testing.assert_close(program.logits_SV(outputs), wanted_SV)


def test_to_cpu_brings_the_devices_weights_back(program: ModuleType, pef: str) -> None:
    """What the host wrote since the last transfer is gone."""
    model, _ = program.traced(pef)
    wanted = model.lm_head.weight.detach().clone()
    model.lm_head.weight.data.zero_()
    program.samba.session.to_cpu(model)
    assert torch.equal(model.lm_head.weight, wanted)


def test_a_run_needs_weights(program: ModuleType, pef: str) -> None:
    """A trace that transfers nothing must be followed by a transfer."""
    model = program.converted_model()
    outputs = program.utils.trace_graph(
        model, program.trace_inputs(), pef=pef, transfer_device=False
    )
    with pytest.raises(RuntimeError, match=r"order of calls.*before any weights"):
        program.step(outputs)
    program.samba.session.to_rdu(model)
    assert program.logits_SV(outputs).isfinite().all()


def test_a_checkpoint_in_the_stock_layout_is_refused(program: ModuleType) -> None:
    """A stock state dict is not transposed: torch's strict load sees it."""
    model = program.converted_model()
    with pytest.raises(RuntimeError, match=r"size mismatch for .*c_attn\.weight"):
        model.load_state_dict(program.stock_model().state_dict())


def test_a_load_that_replaces_parameters_is_refused(program: ModuleType, pef: str) -> None:
    """assign=True puts plain tensors where SambaParameters were."""
    model, _ = program.traced(pef)
    model.load_state_dict(program.patch_(program.stock_model(seed=1)).state_dict(), assign=True)
    with pytest.raises(RuntimeError, match="transfer of weights: parameters were replaced"):
        program.samba.session.to_rdu(model)


def test_a_model_does_not_change_after_its_trace(program: ModuleType, pef: str) -> None:
    """The device runs the compiled graph, whatever the host's model becomes."""
    model, outputs = program.traced(pef)
    model.transformer.h[0].mlp.act = torch.nn.ReLU()
    with pytest.raises(RuntimeError, match=r"the model stays as traced.*ReLU"):
        program.step(outputs)


def test_a_weight_in_the_wrong_layout_is_refused(program: ModuleType) -> None:
    """Addmm takes the layout that its flag says."""
    bias, x, weight = torch.zeros(6), torch.ones(1, 2, 4), torch.ones(4, 6)
    assert program.samba.addmm(bias, x, weight).shape == (1, 2, 6)
    with pytest.raises(RuntimeError, match="layout of addmm"):
        program.samba.addmm(bias, x, weight, is_transposed=True)
