"""Sections, hyperparameters, and the life of a run's outputs."""

from __future__ import annotations

import threading
from types import ModuleType
from typing import Any

import pytest
import torch


@pytest.fixture
def outputs(program: ModuleType, pef: str) -> Any:
    """The outputs of a traced graph."""
    return program.traced(pef)[1]


def test_sections_are_named_in_either_case(program: ModuleType, outputs: Any) -> None:
    """Both spellings are published; none given means all that the PEF has."""
    lower_SV = program.logits_SV(outputs, section_types=["fwd"])
    assert torch.equal(lower_SV, program.logits_SV(outputs, section_types=["FWD"]))
    assert torch.equal(lower_SV, program.logits_SV(outputs, section_types=None))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("bckwd", "of a PEF for inference"),
        ("OPT", "of a PEF for inference"),
        ("gradnorm", "of a PEF for inference"),
        ("forward", "unknown section"),
    ],
)
def test_a_pef_for_inference_has_the_forward_section_only(
    program: ModuleType, outputs: Any, section: str, message: str
) -> None:
    """Other sections, and unknown ones, are refused."""
    with pytest.raises(RuntimeError, match=f"sections of the PEF.*{message}"):
        program.step(outputs, section_types=["fwd", section])


def test_dropout_is_off_only_where_p_is_zero(program: ModuleType, outputs: Any) -> None:
    """P reaches the graph; a program that leaves it out gets the model's own dropout."""
    still_SV = program.logits_SV(outputs)
    assert torch.equal(still_SV, program.logits_SV(outputs))
    loud_SV = program.logits_SV(outputs, hyperparam_dict={"p": 0.5})
    assert not torch.equal(loud_SV, program.logits_SV(outputs, hyperparam_dict={"p": 0.5}))
    assert not torch.equal(still_SV, program.logits_SV(outputs, hyperparam_dict=None))


@pytest.mark.parametrize("wrong", [{"p": "0.0"}, {"p": None}, {"p": True}, {"dropout": 0.0}])
def test_hyperparameters_are_numbers_that_the_graph_has(
    program: ModuleType, outputs: Any, wrong: dict[str, Any]
) -> None:
    """Other kinds and other names are refused."""
    with pytest.raises(RuntimeError, match="hyperparameters"):
        program.step(outputs, hyperparam_dict=wrong)


def test_a_run_asks_for_the_traced_outputs(program: ModuleType, outputs: Any) -> None:
    """A tensor that looks like the output is not the output."""
    other = program.samba.from_torch_tensor(torch.zeros(1, 12, 64), name="output_0")
    with pytest.raises(RuntimeError, match="output tensors of trace_graph"):
        program.step(outputs, output_tensors=(other,))
    assert program.step(outputs) is outputs[0]


def test_a_single_graph_is_run_without_a_name(program: ModuleType, outputs: Any) -> None:
    """graph_name is for a multigraph."""
    with pytest.raises(RuntimeError, match=r"order of calls.*without a multigraph"):
        program.step(outputs, graph_name="model_cache_12_fwd")


def test_the_trace_leaves_its_outputs_on_the_model(program: ModuleType, pef: str) -> None:
    """LeNet reads them there."""
    model, outputs = program.traced(pef)
    assert model.output_tensors is outputs


@pytest.mark.parametrize("read", [lambda out: out[:, 0], torch.argmax, lambda out: out.float()])
def test_an_output_is_read_through_to_torch(program: ModuleType, outputs: Any, read: Any) -> None:
    """The host cannot compute with what lies on the device."""
    run_output = program.step(outputs)
    with pytest.raises(RuntimeError, match="read through to_torch"):
        read(run_output)


def test_an_output_is_not_read_before_a_run(program: ModuleType, outputs: Any) -> None:
    """A traced output holds nothing yet."""
    with pytest.raises(RuntimeError, match=r"read through to_torch.*before any run"):
        program.samba.to_torch(outputs[0])


def test_the_next_run_overwrites_a_kept_result(program: ModuleType, outputs: Any) -> None:
    """A result kept without a copy becomes NaN; a copy stays."""
    kept_1LV = program.samba.to_torch(program.step(outputs))
    copy_SV = kept_1LV[0, : len(program.PROMPT)].clone()
    program.step(outputs, [1, 2])
    assert kept_1LV.isnan().all()
    assert copy_SV.isfinite().all()


def test_two_threads_do_not_run_at_once(
    program: ModuleType, pef: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run while another thread runs is refused."""
    entered, may_go = threading.Event(), threading.Event()
    may_go.set()
    plain = program.head_forward

    def slow(*args: Any, **kwargs: Any) -> Any:
        entered.set()
        assert may_go.wait(30)
        return plain(*args, **kwargs)

    monkeypatch.setattr(program, "head_forward", slow)
    _, outputs = program.traced(pef)
    entered.clear()
    may_go.clear()
    thread = threading.Thread(target=program.step, args=(outputs,))
    thread.start()
    assert entered.wait(30)
    with pytest.raises(RuntimeError, match="one run at a time"):
        program.step(outputs)
    may_go.set()
    thread.join()
    assert program.logits_SV(outputs).isfinite().all()
