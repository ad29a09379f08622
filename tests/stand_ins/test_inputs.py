"""Names, shapes, dtypes and contents of a run's inputs."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch


def changed(program: ModuleType, place: int, value: Any) -> list[Any]:
    """The inputs of a right step with one of them changed."""
    inputs = list(program.step_inputs(program.PROMPT))
    inputs[place] = value
    return inputs


@pytest.fixture
def outputs(program: ModuleType, pef: str) -> Any:
    """The outputs of a traced graph."""
    return program.traced(pef)[1]


@pytest.mark.parametrize(
    ("place", "shape", "dtype", "name", "message"),
    [
        (0, (1, 12), torch.int64, "input_ids", "exact dtypes.*input_ids.*torch.int32"),
        (4, (1, 12), torch.int32, "input_position_ids", "exact dtypes.*torch.int16"),
        (2, (1, 1, 12), torch.bool, "attention_mask", "exact dtypes.*torch.float32"),
        (2, (1, 1, 12), torch.bfloat16, "attention_mask", "exact dtypes.*torch.float32"),
        (2, (1, 12), torch.float32, "attention_mask", r"exact shapes.*\(1, 1, 12\)"),
        (0, (1, 11), torch.int32, "input_ids", r"exact shapes.*\(1, 12\)"),
        (0, (2, 12), torch.int32, "input_ids", r"exact shapes.*\(1, 12\)"),
        (4, (1, 12), torch.int16, "position_ids", "names of inputs.*input_position_ids"),
        (4, (1, 12), torch.int16, "input_ids", "names of inputs.*two inputs named"),
        (4, (1, 12), torch.int16, None, "names of inputs.*no name"),
    ],
)
def test_an_input_is_exactly_as_it_was_traced(
    program: ModuleType,
    outputs: Any,
    place: int,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    name: str | None,
    message: str,
) -> None:
    """Another dtype, shape or name is refused."""
    wrong = program.samba.from_torch_tensor(torch.ones(shape).to(dtype), name=name)
    with pytest.raises(RuntimeError, match=message):
        program.step(outputs, input_tensors=changed(program, place, wrong))


def test_a_missing_input_is_refused(program: ModuleType, outputs: Any) -> None:
    """The mask cannot be left out."""
    with pytest.raises(RuntimeError, match=r"names of inputs.*attention_mask"):
        program.step(outputs, input_tensors=changed(program, 2, None))


def test_an_unknown_input_is_refused(program: ModuleType, outputs: Any) -> None:
    """Nor can labels be added."""
    labels = program.samba.from_torch_tensor(torch.zeros(1, 12).short(), name="labels")
    with pytest.raises(RuntimeError, match=r"names of inputs.*labels"):
        program.step(outputs, input_tensors=changed(program, 1, labels))


def test_none_stays_where_it_was_traced(program: ModuleType, outputs: Any) -> None:
    """Moved placeholders are refused; all of them left out is the training form."""
    ids, _, mask, _, positions, *_ = program.step_inputs(program.PROMPT)
    moved = (ids, mask, None, None, positions, None, None, None)
    with pytest.raises(RuntimeError, match="None only where None was traced"):
        program.step(outputs, input_tensors=moved)
    program.step(outputs, input_tensors=(ids, mask, positions))


def test_a_torch_tensor_is_no_input(program: ModuleType, outputs: Any) -> None:
    """Inputs are SambaTensors."""
    ids = torch.zeros(1, 12, dtype=torch.int32)
    with pytest.raises(RuntimeError, match=r"inputs are SambaTensors.*torch.Tensor"):
        program.step(outputs, input_tensors=changed(program, 0, ids))


def test_trace_inputs_have_names(program: ModuleType) -> None:
    """An input without a name cannot be traced."""
    ids = program.samba.from_torch_tensor(torch.zeros(1, 12).int())
    program.parse_app_args(["compile", "--inference"])
    with pytest.raises(RuntimeError, match=r"names of inputs.*tracing: input 0 has no name"):
        program.samba.session.compile(program.converted_model(), (ids, *program.trace_inputs()[1:]))


def test_a_samba_tensor_shares_its_memory(program: ModuleType, outputs: Any) -> None:
    """A run sees what the torch source holds at that time."""
    ids_1L = torch.zeros(1, 12, dtype=torch.int32)
    ids = program.samba.from_torch_tensor(ids_1L, name="input_ids")
    ids_1L[0, : len(program.PROMPT)] = torch.tensor(program.PROMPT)
    found_SV = program.logits_SV(outputs, input_tensors=changed(program, 0, ids))
    torch.testing.assert_close(found_SV, program.reference_logits_SV(program.PROMPT))


def test_an_expanded_view_is_wrapped_as_it_is(program: ModuleType) -> None:
    """A view of stride 0 keeps its memory."""
    row_L = torch.arange(12).short()
    wrapped = program.samba.from_torch_tensor(row_L.unsqueeze(0).expand(1, 12), name="positions")
    assert wrapped.torch().data_ptr() == row_L.data_ptr()
    twice = program.samba.from_torch_tensor(row_L[:1].expand(3, 1), name="twice")
    assert twice.torch().stride() == (0, 1)


@pytest.mark.parametrize(
    "mask", [[0.0] * 8 + [1.0] * 4, [1.0, 0.0] * 6, [0.0] * 12, [1.0, 1.0, 0.5] + [0.0] * 9]
)
def test_padding_stands_on_the_right(program: ModuleType, outputs: Any, mask: list[float]) -> None:
    """The mask is ones, then zeros."""
    wrong = program.samba.from_torch_tensor(torch.tensor([[mask]]), name="attention_mask")
    with pytest.raises(RuntimeError, match="right padding in the mask"):
        program.step(outputs, input_tensors=changed(program, 2, wrong))


def test_positions_count_through_the_padding(program: ModuleType, outputs: Any) -> None:
    """They are 0 to length - 1, whatever the mask says."""
    positions = torch.tensor([[0, 1, 2, 3] + [1] * 8], dtype=torch.int16)
    wrong = program.samba.from_torch_tensor(positions, name="input_position_ids")
    with pytest.raises(RuntimeError, match="positions count from 0"):
        program.step(outputs, input_tensors=changed(program, 4, wrong))


def test_rows_of_the_padding_are_poison(program: ModuleType, outputs: Any) -> None:
    """A program that reads past its tokens reads NaN."""
    logits_1LV = program.samba.to_torch(program.step(outputs))
    assert logits_1LV[:, : len(program.PROMPT)].isfinite().all()
    assert logits_1LV[:, len(program.PROMPT) :].isnan().all()


def test_a_causal_model_does_not_see_the_padding(program: ModuleType, outputs: Any) -> None:
    """Every run gets other tokens in its padding, and gives the same logits."""
    first_SV = program.logits_SV(outputs)
    assert torch.equal(first_SV, program.logits_SV(outputs))


def test_a_model_that_looks_at_the_padding_gives_itself_away(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """A patch that loses the causal order differs from run to run."""

    def leaking(self: Any, input_ids: torch.Tensor, *_: Any) -> tuple[torch.Tensor]:
        hidden = self.transformer.wte(input_ids)
        return (self.lm_head(hidden + hidden.mean(1, keepdim=True)),)

    monkeypatch.setattr(program, "head_forward", leaking)
    _, outputs = program.traced(program.compiled_pef(tmp_path))
    first_SV = program.logits_SV(outputs, hyperparam_dict={})
    assert not torch.equal(first_SV, program.logits_SV(outputs, hyperparam_dict={}))


def test_a_loop_past_the_compiled_length_is_refused(program: ModuleType, outputs: Any) -> None:
    """The crop of a negative pad sends the same full row again."""
    tokens = list(range(1, program.LENGTH + 1))
    program.step(outputs, tokens)
    with pytest.raises(RuntimeError, match="no step past the compiled length"):
        program.step(outputs, [*tokens, 40][: program.LENGTH])


def test_two_full_rows_that_differ_are_no_overflow(program: ModuleType, outputs: Any) -> None:
    """Another row may fill the length too."""
    tokens = list(range(1, program.LENGTH + 1))
    program.step(outputs, tokens)
    program.step(outputs, tokens[::-1])
