"""Checks of what the tutorial's inputs hold, and poison where nobody may look.

They apply to a graph with the tutorial's three names; other graphs pass as they are.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from sambaflow.stand_in.contracts import Contract, ContractError

IDS, MASK, POSITIONS = "input_ids", "attention_mask", "input_position_ids"


def check_content(inputs: Mapping[str, torch.Tensor]) -> None:
    """Check the mask and the positions of a tutorial's run.

    Raises:
        ContractError: The mask is not ones, then zeros; or positions are not 0, 1, 2, ...
    """
    if not {IDS, MASK, POSITIONS} <= inputs.keys() or inputs[IDS].shape[0] != 1:
        return
    mask = inputs[MASK].flatten()
    num_real = int((mask == 1).sum())
    if num_real == 0 or not (mask[:num_real] == 1).all() or not (mask[num_real:] == 0).all():
        raise ContractError(
            Contract.MASK,
            f"a mask with {num_real} ones that is not ones and then zeros",
            "1.0 for each real token, then 0.0 for the padding on the right",
        )
    positions = inputs[POSITIONS].flatten()
    if not torch.equal(positions.long(), torch.arange(positions.numel())):
        raise ContractError(
            Contract.POSITIONS,
            f"{POSITIONS} that begins {positions[:8].tolist()}",
            "0 to length - 1, padding included",
        )


def real_token_ids(inputs: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
    """The tokens that are no padding, in a row; None for a graph without one row of them."""
    if IDS not in inputs or inputs[IDS].shape[0] != 1:
        return None
    ids = inputs[IDS].flatten()
    if MASK not in inputs or inputs[MASK].numel() != ids.numel():
        return ids
    return ids[inputs[MASK].flatten() == 1]


def with_other_padding(inputs: Mapping[str, torch.Tensor], run: int) -> dict[str, torch.Tensor]:
    """The inputs with other token ids in the padding, in each run others.

    A graph whose real rows depend on the padding so gives other results from run to run.
    """
    real = real_token_ids(inputs)
    if real is None or real.numel() == 0 or MASK not in inputs:
        return dict(inputs)
    ids = inputs[IDS].clone()
    padding = ids.shape[-1] - real.numel()
    places = (torch.arange(padding) * 7 + run) % real.numel()
    ids[0, real.numel() :] = real[places]
    return {**inputs, IDS: ids}


def poison_padding_rows(output: torch.Tensor, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The output with NaN in the rows of the padding: nobody may read them."""
    real = real_token_ids(inputs)
    has_rows = output.dim() > 1 and IDS in inputs and output.shape[1] == inputs[IDS].shape[-1]
    if real is None or not has_rows or not output.dtype.is_floating_point:
        return output
    poisoned = output.clone()
    poisoned[:, real.numel() :] = torch.nan
    return poisoned


class OverflowWatch:
    """Sees a decode loop that goes on after the sequence is full.

    The tutorial's `F.pad` then crops the newest token, so that the same full row comes again.
    """

    def __init__(self) -> None:
        self._full_ids: torch.Tensor | None = None

    def check(self, inputs: Mapping[str, torch.Tensor]) -> None:
        """Check one run against the one before.

        Raises:
            ContractError: The same full row came twice.
        """
        real = real_token_ids(inputs)
        if real is None or MASK not in inputs or real.numel() < inputs[IDS].numel():
            self._full_ids = None
            return
        if self._full_ids is not None and torch.equal(real, self._full_ids):
            raise ContractError(
                Contract.OVERFLOW,
                f"the same full row of {real.numel()} tokens twice: a newer token was cropped",
                "the loop stops when the compiled length is reached",
            )
        self._full_ids = real.clone()
