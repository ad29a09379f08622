"""Directives of the compiler that a model's patch gives [T: gpt2_patch.py]."""

from __future__ import annotations

from torch import nn

from sambaflow.stand_in.contracts import Contract, ContractError
from sambaflow.stand_in.models import MODELS


def op_fusion(module: nn.Module, name: str) -> None:
    """Ask that a module becomes one fused section; part of the graph's fingerprint.

    Raises:
        ContractError: The module was converted already: patches come first.
    """
    if MODELS.is_converted(module):
        raise ContractError(
            Contract.PATCH_FIRST,
            f"op_fusion({type(module).__name__}, {name!r}) after samba.from_torch_model_",
            "the patch first, then samba.from_torch_model_",
        )
    MODELS.add_directive(module, name)
