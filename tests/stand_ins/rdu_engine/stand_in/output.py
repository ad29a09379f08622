"""What a run gives back: a view of the device's regions, until the next run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from sambaflow.stand_in.contracts import Contract, ContractError
from sambaflow.stand_in.region import Region


class ModelOutput:
    """The outputs of the latest run; each is transferred when it is first asked for [WHL; inf]."""

    def __init__(self, regions: Mapping[str, Region], *, reuse_outputs: bool) -> None:
        self._regions = dict(regions)
        self._reuse_outputs = reuse_outputs
        self._is_valid = True

    def get_tensor(self, name: str) -> torch.Tensor:
        """One output by its symbol.

        With `reuse_outputs` its memory is the engine's: the next run overwrites it [inf].

        Raises:
            ContractError: A later run was made, or there is no such output [WHL: messages].
        """
        if not self._is_valid:
            raise ContractError(
                Contract.READS,
                "ModelOutput was invalidated, please use the output from the latest run call",
                "a read before the next run",
            )
        if name not in self._regions:
            raise ContractError(
                Contract.NAMES,
                f'the schedule does not have a tensor "{name}" among its outputs',
                f"one of {sorted(self._regions)}",
            )
        value = self._regions[name].read()
        return value if self._reuse_outputs else value.clone()

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.get_tensor(list(self._regions)[index])

    def __iter__(self) -> Iterator[torch.Tensor]:
        return (self.get_tensor(name) for name in list(self._regions))

    def _invalidate(self) -> None:
        self._is_valid = False
