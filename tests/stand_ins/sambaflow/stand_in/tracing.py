"""Tracing: run a model once, note every torch call, and make the fingerprint of the graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from sambaflow.stand_in.contracts import Contract, ContractError
from sambaflow.stand_in.models import MODELS
from sambaflow.stand_in.specs import Inputs, InputSpec, input_values, specs_of

Fingerprint = dict[str, Any]


@dataclass(frozen=True)
class Trace:
    """A traced graph: its inputs, its outputs, its argins, and its fingerprint."""

    inputs: tuple[InputSpec, ...]
    input_keys: tuple[str, ...] | None  # names of forward's arguments, where inputs were a dict
    outputs: tuple[torch.Tensor, ...]
    argins: dict[str, float]
    fingerprint: Fingerprint


class ByForward(nn.Module):
    """Runs a model's `forward`, past its class's `__call__`, which programs patch [T]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call the model's own forward."""
        return self.model.forward(*args, **kwargs)


class Recorder(TorchFunctionMode):
    """Notes each torch call that makes tensors, and whether the graph has dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.dropout: float | None = None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        told = kwargs or {}
        result = func(*args, **told)
        has_dropout = func in (functional.dropout, functional.scaled_dot_product_attention)
        if func is functional.dropout:
            self.dropout = dropout_told(args, told)
        if isinstance(result, torch.Tensor):
            settings = "" if has_dropout else scalars(args, told)
            name = getattr(func, "__name__", repr(func))
            self.calls.append(f"{name}{settings} -> {tuple(result.shape)} {result.dtype}")
        return result


class Argins(TorchFunctionMode):
    """Gives every dropout of the graph the probability `p` of this run."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self._p = p

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        told = dict(kwargs or {})
        if func is functional.dropout:
            return torch.dropout(args[0] if args else told["input"], self._p, True)
        if func is functional.scaled_dot_product_attention:
            args, told["dropout_p"] = args[:4], self._p
        return func(*args, **told)


def scalars(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """The numbers, words and dtypes among a call's arguments."""
    plain = (int, float, str, torch.dtype)
    told = [str(value) for value in args if isinstance(value, plain)]
    told += [f"{key}={value}" for key, value in kwargs.items() if isinstance(value, plain)]
    return f"({', '.join(told)})"


def dropout_told(args: Sequence[Any], kwargs: Mapping[str, Any]) -> float:
    """The probability in a call of dropout."""
    return float(args[1] if len(args) > 1 else kwargs.get("p", 0.5))


def compute(
    model: nn.Module,
    weights: Mapping[str, torch.Tensor],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    mode: TorchFunctionMode,
) -> Any:
    """What a model's forward gives with other weights than its own.

    Integers are widened first: torch has no embedding by int16, the device has.
    """
    held = {f"model.{name}": value for name, value in weights.items()}
    wide = tree_map_only(torch.Tensor, widened, (tuple(args), dict(kwargs)))
    with torch.no_grad(), mode:
        return functional_call(ByForward(model), held, wide)


def plain_tensors(model: nn.Module, result: Any) -> tuple[torch.Tensor, ...]:
    """The tensors of a result that is a tensor, or a tuple of them.

    Raises:
        ContractError: It is anything else.
    """
    outputs = (result,) if isinstance(result, torch.Tensor) else result
    if not isinstance(outputs, (tuple, list)) or not all(
        isinstance(one, torch.Tensor) for one in outputs
    ):
        raise ContractError(
            Contract.PLAIN_OUTPUTS,
            f"forward of {type(model).__name__} gave a {type(result).__name__}",
            "a tensor or a tuple of tensors: patch the model",
        )
    return tuple(outputs)


def widened(value: torch.Tensor) -> torch.Tensor:
    """An integer tensor in int64; others as they are."""
    if value.dtype.is_floating_point or value.dtype is torch.bool:
        return value
    return value.long()


def trace(model: nn.Module, inputs: Inputs) -> Trace:
    """Trace a model; the values of the inputs and of the weights do not matter.

    Raises:
        ContractError: The model was not converted, or the inputs are not named SambaTensors.
    """
    MODELS.check_kept(model, "tracing")
    specs = specs_of(inputs, "tracing")
    values = [None if value is None else stand_in_value(value) for value in input_values(inputs)]
    keys = tuple(inputs) if isinstance(inputs, Mapping) else None
    args = values if keys is None else ()
    kwargs = {} if keys is None else dict(zip(keys, values, strict=True))
    recorder = Recorder()
    result = compute(model, traceable_weights(model), args, kwargs, recorder)
    outputs = plain_tensors(model, result)
    argins = {} if recorder.dropout is None else {"p": recorder.dropout}
    return Trace(
        inputs=specs,
        input_keys=keys,
        outputs=outputs,
        argins=argins,
        fingerprint={
            **structure(model),
            "inputs": [spec.as_json() for spec in specs],
            "outputs": [[list(one.shape), str(one.dtype)] for one in outputs],
            "calls": recorder.calls,
        },
    )


def stand_in_value(tensor: Any) -> torch.Tensor:
    """Values for the trace: ones in the first half and zeros after, whatever the program gave.

    A model may look at values (at a mask of ones, say): so that the same graph comes out of every
    trace, the program's random ones are not used.
    """
    num_elements = tensor.numel()
    ones = torch.arange(num_elements) < (num_elements + 1) // 2
    return ones.to(tensor.dtype).view(tensor.shape)


def traceable_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Zeros for weights that have no values yet: a graph compiles without them [MZ]."""
    return {
        name: torch.zeros(parameter.shape, dtype=parameter.dtype)
        for name, parameter in model.named_parameters()
        if parameter.is_meta
    }


def structure(model: nn.Module) -> Fingerprint:
    """What can be told of a model's graph without running it."""
    return {
        "modules": [[path, type(module).__qualname__] for path, module in model.named_modules()],
        "directives": [
            [path, name]
            for path, module in model.named_modules()
            for name in MODELS.directives_of(module)
        ],
        "parameters": described(model.named_parameters()),
        "buffers": described(model.named_buffers()),
    }


def described(named: Any) -> list[list[Any]]:
    """Names, shapes and dtypes."""
    return [[name, list(one.shape), str(one.dtype)] for name, one in named]


def difference(wanted: Fingerprint, found: Fingerprint) -> str | None:
    """Where two fingerprints differ first; None where they do not."""
    for part, value in wanted.items():
        other = found.get(part)
        if other == value:
            continue
        if isinstance(value, list) and isinstance(other, list):
            pairs = zip(value, other, strict=False)
            first = next(((old, new) for old, new in pairs if old != new), None)
            if first is None:
                return f"{part}: {len(other)} instead of {len(value)}"
            return f"{part}: {first[1]} instead of {first[0]}"
        return f"{part}: {other} instead of {value}"
    return None
