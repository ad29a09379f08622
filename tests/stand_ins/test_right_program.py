"""A program as the tutorial writes it passes, and computes what the plain model computes."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch


def test_a_run_gives_the_logits_of_the_plain_model(program: ModuleType, pef: str) -> None:
    """Compile, trace, run: the real rows are those of transformers with the exact GELU."""
    _, outputs = program.traced(pef)
    found_SV = program.logits_SV(outputs)
    torch.testing.assert_close(found_SV, program.reference_logits_SV(program.PROMPT))


def test_a_decode_loop_gives_the_tokens_of_the_plain_model(program: ModuleType, pef: str) -> None:
    """Step by step to the compiled length, each the greedy token of the reference."""
    _, outputs = program.traced(pef)
    tokens = program.generate(outputs, num_tokens=20)
    assert len(tokens) == program.LENGTH
    for cut in range(len(program.PROMPT), len(tokens)):
        assert tokens[cut] == int(program.reference_logits_SV(tokens[:cut])[-1].argmax())


def test_the_patch_and_the_stock_model_differ(program: ModuleType) -> None:
    """The exact GELU is not the stock tanh form: compare with a patched reference only."""
    with torch.no_grad():
        stock_SV = program.stock_model()(torch.tensor([program.PROMPT])).logits[0]
    difference = (stock_SV - program.reference_logits_SV(program.PROMPT)).abs().max()
    assert difference > 1e-5


def test_logits_can_come_in_bfloat16(
    program: ModuleType, pef: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The setting rounds the output as a device of that dtype would."""
    monkeypatch.setenv("SAMBAFLOW_STAND_IN_LOGITS_DTYPE", "bfloat16")
    _, outputs = program.traced(pef)
    assert outputs[0].dtype is torch.bfloat16
    wanted_SV = program.reference_logits_SV(program.PROMPT)
    torch.testing.assert_close(program.logits_SV(outputs), wanted_SV, rtol=2**-8, atol=1e-5)


def test_host_bytes_are_counted(program: ModuleType, stand_in: ModuleType, pef: str) -> None:
    """A run that returns all positions moves them all; reading twice moves them once."""
    _, outputs = program.traced(pef)
    run_output = program.step(outputs)
    assert stand_in.TRAFFIC.bytes_to_host == 0
    program.samba.to_torch(run_output)
    program.samba.to_torch(run_output)
    assert stand_in.TRAFFIC.num_runs == 1
    assert stand_in.TRAFFIC.bytes_to_host == program.LENGTH * program.VOCAB_SIZE * 4
    assert stand_in.TRAFFIC.bytes_to_device == program.LENGTH * (4 + 4 + 2)


def test_each_call_can_be_logged(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The events file tells the order of calls, for programs in other processes."""
    events = tmp_path / "events.jsonl"
    monkeypatch.setenv("SAMBAFLOW_STAND_IN_EVENTS", str(events))
    _, outputs = program.traced(program.compiled_pef(tmp_path))
    program.logits_SV(outputs)
    seen = [json.loads(line)["event"] for line in events.read_text().splitlines()]
    assert seen == ["compile", "session", "weights_to_device", "trace_graph", "run", "to_host"]


def test_a_model_without_weights_compiles_to_the_same_graph(
    program: ModuleType, tmp_path: Path
) -> None:
    """A compile needs shapes only."""
    model = program.patch_(program.stock_model())
    with torch.device("meta"):
        empty = program.patch_(program.GPT2LMHeadModel(model.config))
    program.samba.from_torch_model_(empty)
    program.parse_app_args(["compile", "--inference", "--output-folder", str(tmp_path)])
    pef = program.samba.session.compile(empty, program.trace_inputs())
    _, outputs = program.traced(pef)
    assert program.logits_SV(outputs).isfinite().all()


def test_a_class_whose_call_runs_on_the_device_does_not_call_itself(
    program: ModuleType, pef: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tutorial swaps the class's __call__ for a run; the graph is forward's."""
    model, outputs = program.traced(pef)

    def on_device(self: Any, tokens: list[int]) -> torch.Tensor:
        return program.logits_SV(outputs, tokens)

    with monkeypatch.context() as patched:
        patched.setattr(type(model), "__call__", on_device)
        found_SV = model(program.PROMPT)
    torch.testing.assert_close(found_SV, program.reference_logits_SV(program.PROMPT))
