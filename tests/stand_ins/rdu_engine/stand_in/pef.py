"""`rdu_engine.PEF`: a compiled file on the device, its schedules, and a run of one [WHL; MZ]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from sambaflow.stand_in.contracts import Contract, ContractError, StandInLimitError
from sambaflow.stand_in.kv_cache import real_tokens, with_other_padding
from sambaflow.stand_in.pef import read_pef
from sambaflow.stand_in.programs import Program, loaded
from sambaflow.stand_in.region import Region
from sambaflow.stand_in.traffic import TRAFFIC, note_event

from rdu_engine.stand_in.checkpoint import Checkpoint, load_weights
from rdu_engine.stand_in.engine import ENGINE
from rdu_engine.stand_in.output import ModelOutput
from rdu_engine.stand_in.symbols import Symbol, dtype_name


@dataclass(frozen=True)
class Schedule:
    """One graph of a PEF."""

    inputs: dict[str, Symbol]
    outputs: dict[str, Symbol]
    program: Program


class PEF:
    """A PEF, opened [WHL: its arguments; MZ: `copy_pef_path` by name]."""

    def __init__(self, path: str, debug: bool = False, copy_pef_path: str | None = None) -> None:
        """Open a PEF that the stand-in of `sambaflow` wrote for several graphs.

        Raises:
            ContractError: It is missing, damaged or of one graph; or a process's rule is broken.
            RuntimeError: Its version is not the runtime's.
        """
        if debug or copy_pef_path is not None:
            raise StandInLimitError("the stand-in neither debugs nor copies PEFs")
        content = read_pef(path)
        programs = programs_of(path, content)
        ENGINE.open_pef(str(path), content)
        self._path = str(path)
        self._weights = weight_symbols(programs)
        self._schedules = {
            name: Schedule(
                {one[0]: Symbol.of(one) for one in graph["inputs"]},
                {one[0]: Symbol.of(one) for one in graph["outputs"]},
                loaded(graph["program"]),
            )
            for name, graph in programs["graphs"].items()
        }
        self._latest: ModelOutput | None = None

    def get_schedules(self) -> set[str]:
        """Names of the graphs [WHL]."""
        return set(self._schedules)

    def load_checkpoint(self, path: str) -> Checkpoint:
        """Read weights from a folder, and bring them to the device [WHL; MZ].

        Raises:
            ContractError: The folder does not hold what `get_checkpoint_spec` says.
        """
        ENGINE.check_process()
        weights = load_weights(self._path, path, self._weights)
        symbols = {
            symbol.name: symbol
            for schedule in self._schedules.values()
            for symbol in (*schedule.inputs.values(), *schedule.outputs.values())
        }
        regions = {
            name: Region(name, torch.Size(symbol.shape), symbol.dtype)
            for name, symbol in symbols.items()
        }
        note_event("load_checkpoint", path=path)
        return Checkpoint(self, weights, regions)

    def run(
        self,
        checkpoint: Checkpoint,
        inputs: Mapping[str, torch.Tensor] | Sequence[torch.Tensor | None],
        schedule: str,
        reuse_outputs: bool = False,
    ) -> ModelOutput:
        """Run one graph [WHL; MZ]; what is not given stays as it is on the device.

        Returns:
            Its outputs. Those of the run before are invalid from now on.

        Raises:
            ContractError: A contract is broken; its name is in the message.
            RuntimeError: An injected fault of the device.
        """
        if not isinstance(inputs, Mapping):
            raise StandInLimitError("the stand-in takes inputs by name")
        with ENGINE.one_run():
            ENGINE.check_process()
            self._check_own(checkpoint)
            if schedule not in self._schedules:
                raise ContractError(
                    Contract.GRAPH_NAMES,
                    f'Unknown schedule "{schedule}"!',
                    f"{sorted(self._schedules)}",
                )
            held = self._held(checkpoint, schedule, inputs)
            checkpoint._cache.check(schedule, self._schedules, held)
            given = {name: held[name] for name in inputs}
            TRAFFIC.ran(sum(one.numel() * one.element_size() for one in given.values()))
            ENGINE.faults.before_run(TRAFFIC.num_runs, real_tokens(given))
            return self._compute(checkpoint, schedule, given, held, reuse_outputs=reuse_outputs)

    def _check_own(self, checkpoint: Checkpoint) -> None:
        if not isinstance(checkpoint, Checkpoint) or checkpoint._pef is not self:
            raise ContractError(
                Contract.CHECKPOINT,
                "Cannot run the provided checkpoint---it is from a different MLApp!",
                "one that this PEF has loaded",
            )

    def _held(
        self, checkpoint: Checkpoint, schedule: str, inputs: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """The values of a graph's inputs: those given, checked, and those on the device."""
        symbols = self._schedules[schedule].inputs
        for name, value in inputs.items():
            if name not in symbols:
                raise ContractError(
                    Contract.NAMES,
                    f'PEF "{self._path}" does not have a tensor "{name}" in {schedule!r}',
                    f"inputs of this schedule: {sorted(symbols)}",
                )
            symbols[name].check(value)
        held: dict[str, torch.Tensor] = {}
        empty = []
        for name in symbols:
            value = inputs.get(name, checkpoint._regions[name].device_value())
            if value is None:
                empty.append(name)
            else:
                held[name] = value.clone() if name in inputs else value
        if empty:
            raise ContractError(
                Contract.REGIONS,
                f'Schedule "{schedule}" has the following uninitialized inputs: {empty}',
                "them among the inputs, or a schedule that fills them, such as the prefill",
            )
        return held

    def _compute(
        self,
        checkpoint: Checkpoint,
        schedule: str,
        given: Mapping[str, torch.Tensor],
        held: Mapping[str, torch.Tensor],
        *,
        reuse_outputs: bool,
    ) -> ModelOutput:
        if self._latest is not None:
            self._latest._invalidate()
        graph, regions = self._schedules[schedule], checkpoint._regions
        for name, value in given.items():
            regions[name].write(value)
        results = graph.program(
            checkpoint._weights, with_other_padding(schedule, held, TRAFFIC.num_runs)
        )
        for (name, symbol), result in zip(graph.outputs.items(), results, strict=True):
            regions[name].write(result.to(symbol.dtype).clone())
        outputs = {name: regions[name] for name in graph.outputs}
        self._latest = ModelOutput(outputs, reuse_outputs=reuse_outputs)
        return self._latest


def get_checkpoint_spec(pef_path: str) -> dict[str, dict[str, Any]]:
    """Names of the weights that a PEF wants, with "shape" and "dtype" [WHL: docstring].

    Raises:
        ContractError: The PEF is missing, damaged or of one graph.
    """
    return {
        name: {"shape": list(symbol.shape), "dtype": dtype_name(symbol.dtype)}
        for name, symbol in weight_symbols(programs_of(pef_path, read_pef(pef_path))).items()
    }


def programs_of(path: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """What a PEF holds to be run.

    Raises:
        ContractError: It is of one graph; whether the engine runs such a PEF is not public.
    """
    if "programs" not in content:
        raise ContractError(
            Contract.PEF_MATCH, f"{path} is a PEF of one graph", "a PEF of several graphs"
        )
    return dict(content["programs"])


def weight_symbols(programs: Mapping[str, Any]) -> dict[str, Symbol]:
    """The weights of a PEF by name."""
    return {name: Symbol.of([name, *spec]) for name, spec in programs["weights"].items()}
