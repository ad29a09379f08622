"""The tutorial's inference program over a tiny random GPT-2, written from its description.

The right program of these tests: the wrong ones differ from it in one thing each. It runs as a
script too: `tutorial_program.py compile|run ...` with the framework's flags.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import MethodType
from typing import Any

import sambaflow.samba.utils as utils
import torch
from sambaflow import samba
from sambaflow.samba import SambaTensor
from sambaflow.samba.directives import op_fusion
from sambaflow.samba.utils.argparser import parse_app_args
from torch import nn
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel

LENGTH = 12
VOCAB_SIZE = 64
PROMPT = [5, 9, 33, 2]

Outputs = Sequence[SambaTensor]


def stock_model(seed: int = 0, num_layers: int = 2) -> GPT2LMHeadModel:
    """A tiny GPT-2 with large random weights, so that each token matters."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=VOCAB_SIZE, n_positions=32, n_embd=16, n_layer=num_layers, n_head=2
    )
    model = GPT2LMHeadModel(config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


def reference_logits_SV(tokens: Sequence[int], seed: int = 0) -> torch.Tensor:
    """Logits of the same weights by plain transformers, with the patch's exact GELU."""
    model = stock_model(seed)
    for block in model.transformer.h:
        block.mlp.act = nn.GELU()
    with torch.no_grad():
        return model(torch.tensor([list(tokens)])).logits[0]


def conv1d_forward(self: Any, x: torch.Tensor) -> torch.Tensor:
    """The patched Conv1D: the weight lies transposed."""
    return samba.addmm(self.bias, x, self.weight, is_transposed=True)


def head_forward(
    self: Any,
    input_ids: torch.Tensor,
    past_key_values: None = None,
    attention_mask: torch.Tensor | None = None,
    token_type_ids: None = None,
    position_ids: torch.Tensor | None = None,
    head_mask: None = None,
    inputs_embeds: None = None,
    encoder_hidden_states: None = None,
) -> tuple[torch.Tensor]:
    """The patched head: a plain tuple of the logits of all positions."""
    hidden = self.transformer(
        input_ids, attention_mask=attention_mask, position_ids=position_ids, use_cache=False
    )[0]
    return (self.lm_head(hidden),)


def patch_(model: GPT2LMHeadModel) -> GPT2LMHeadModel:
    """Patch a GPT-2 as the tutorial does."""
    model.forward = MethodType(head_forward, model)
    for block in model.transformer.h:
        block.mlp.act = nn.GELU()
        for layer in (block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj):
            layer.weight = nn.Parameter(layer.weight.data.transpose(1, 0))
            layer.forward = MethodType(conv1d_forward, layer)
        op_fusion(block, "Encoder")
    return model


def converted_model(seed: int = 0, num_layers: int = 2) -> GPT2LMHeadModel:
    """A patched model, converted."""
    model = patch_(stock_model(seed, num_layers))
    samba.from_torch_model_(model)
    return model


def trace_inputs(length: int = LENGTH) -> tuple[SambaTensor | None, ...]:
    """The tutorial's eight inputs; the values do not matter."""
    ids_1L = torch.randint(0, VOCAB_SIZE, (1, length)).int()
    mask_11L = torch.randint(2, (1, length))[:, None, :].to(torch.float32)
    return wrapped(ids_1L, mask_11L)


def step_inputs(tokens: Sequence[int], length: int = LENGTH) -> tuple[SambaTensor | None, ...]:
    """The inputs of one step: tokens padded on the right, and their mask."""
    num_padding = length - len(tokens)
    ids_1L = functional.pad(torch.tensor([list(tokens)]), (0, num_padding)).int()
    mask_1L = functional.pad(torch.ones(1, len(tokens)), (0, num_padding))
    return wrapped(ids_1L, mask_1L[:, None, :])


def wrapped(ids_1L: torch.Tensor, mask_11L: torch.Tensor) -> tuple[SambaTensor | None, ...]:
    """The eight positions of the patched forward."""
    ids = samba.from_torch_tensor(ids_1L, name="input_ids")
    mask = samba.from_torch_tensor(mask_11L, name="attention_mask")
    positions_L = torch.arange(ids_1L.shape[1]).short()
    positions = samba.from_torch_tensor(
        positions_L.unsqueeze(0).expand(ids.shape), name="input_position_ids"
    )
    return (ids, None, mask, None, positions, None, None, None)


def compiled_pef(folder: Any, name: str = "tiny", num_layers: int = 2) -> str:
    """Compile for inference; the path of the PEF."""
    parse_app_args(["compile", "--inference", "--pef-name", name, "--output-folder", str(folder)])
    return samba.session.compile(converted_model(num_layers=num_layers), trace_inputs())


def traced(pef: str, seed: int = 0) -> tuple[GPT2LMHeadModel, Outputs]:
    """A model on the device, and the outputs of its graph."""
    parse_app_args(["run", "--inference", "--pef", pef])
    model = converted_model(seed)
    return model, utils.trace_graph(model, trace_inputs(), pef=pef)


def step(outputs: Outputs, tokens: Sequence[int] = PROMPT, **changes: Any) -> SambaTensor:
    """One run; `changes` are what a wrong program does otherwise."""
    told: dict[str, Any] = {
        "input_tensors": step_inputs(tokens),
        "output_tensors": outputs,
        "hyperparam_dict": {"p": 0.0},
        "section_types": ["fwd"],
    }
    return samba.session.run(**{**told, **changes})[0]


def logits_SV(outputs: Outputs, tokens: Sequence[int] = PROMPT, **changes: Any) -> torch.Tensor:
    """The logits of the real rows of one run, as a copy of the host's own."""
    run_output = step(outputs, tokens, **changes)
    return samba.to_torch(run_output)[0, : len(tokens)].float().clone()


def generate(outputs: Outputs, num_tokens: int) -> list[int]:
    """Greedy tokens after the prompt, until the compiled length is full."""
    tokens = list(PROMPT)
    while len(tokens) < min(len(PROMPT) + num_tokens, LENGTH):
        tokens.append(int(logits_SV(outputs, tokens)[-1].argmax()))
    return tokens


def main(argv: Sequence[str]) -> None:
    """Compile, or run and print the tokens."""
    args = parse_app_args(argv)
    model = converted_model()
    inputs = trace_inputs()
    if args.command == "compile":
        samba.session.compile(model, inputs)
    else:
        outputs = utils.trace_graph(model, inputs, pef=args.pef)
        sys.stdout.write(f"tokens: {generate(outputs, num_tokens=5)}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
