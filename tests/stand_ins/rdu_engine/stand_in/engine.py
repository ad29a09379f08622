"""The engine of this process: its device, and the PEFs that it has opened."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from sambaflow.stand_in.contracts import Contract, ContractError
from sambaflow.stand_in.faults import FaultInjector
from sambaflow.stand_in.settings import runtime_version
from sambaflow.stand_in.tiles import reserve_tiles
from sambaflow.stand_in.traffic import note_event


class Engine:
    """One per process; it may hold several PEFs [WHL], on the tiles of the widest [inf]."""

    def __init__(self) -> None:
        self._pid: int | None = None
        self._tiles: list[IO[bytes]] = []
        self._running = threading.Lock()
        self.faults = FaultInjector()

    def open_pef(self, pef: str, content: dict[str, Any]) -> None:
        """Take what a PEF needs.

        Raises:
            ContractError: The process was forked from one that has opened a PEF, or tiles are
                missing.
            RuntimeError: The PEF's version is not the runtime's; the words are those of SambaFlow,
                as the engine's own are not public [inf].
        """
        self.check_process()
        if content["version"] != runtime_version() or self.faults.version_mismatch():
            raise RuntimeError(
                "Failed to Create Session on RDU: PEF version mismatch "
                f"(PEF {content['version']}, runtime {runtime_version()})"
            )
        missing = content["num_tiles"] - len(self._tiles)
        if missing > 0:
            self._tiles += reserve_tiles(missing)
        self._pid = os.getpid()
        note_event("open_pef", pef=pef)

    def release_tiles(self) -> None:
        """Give the tiles back, as the end of the process would."""
        for file in self._tiles:
            file.close()
        self._tiles = []

    def check_process(self) -> None:
        """Check that no other process made this engine [inf].

        Raises:
            ContractError: One did, and this one was forked from it.
        """
        if self._pid not in (None, os.getpid()):
            raise ContractError(
                Contract.FORK,
                f"process {os.getpid()} uses the engine of process {self._pid}",
                "a process started by spawn, with an engine of its own",
            )

    @contextmanager
    def one_run(self) -> Iterator[None]:
        """Hold the device for one run.

        Raises:
            ContractError: A run is under way in another thread.
        """
        if not self._running.acquire(blocking=False):
            raise ContractError(
                Contract.ONE_RUN, "PEF.run while another thread runs", "one run at a time"
            )
        try:
            yield
        finally:
            self._running.release()


ENGINE = Engine()
