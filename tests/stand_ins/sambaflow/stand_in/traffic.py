"""Counts the bytes between host and device: a property of a design, no claim of speed."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

from sambaflow.stand_in.settings import events_path


@dataclass
class HostTraffic:
    """Bytes that this process moved; an output counts once a run, when it is first read."""

    num_runs: int = 0
    bytes_to_device: int = 0
    bytes_to_host: int = 0
    weight_bytes_to_device: int = 0

    def ran(self, num_bytes: int) -> None:
        """Note one run and the bytes of its inputs."""
        self.num_runs += 1
        self.bytes_to_device += num_bytes
        note_event("run", run=self.num_runs, bytes_to_device=num_bytes)

    def read(self, region: str, num_bytes: int) -> None:
        """Note that the host read an output."""
        self.bytes_to_host += num_bytes
        note_event("to_host", region=region, bytes_to_host=num_bytes)

    def transferred_weights(self, num_bytes: int) -> None:
        """Note that the host sent weights."""
        self.weight_bytes_to_device += num_bytes
        note_event("weights_to_device", bytes_to_device=num_bytes)


def note_event(event: str, **facts: Any) -> None:
    """Append one line to the events file, where a test asked for one."""
    path = events_path()
    if path is not None:
        line = json.dumps({"event": event, "pid": os.getpid(), **facts}) + "\n"
        with path.open("a") as file:
            file.write(line)


TRAFFIC = HostTraffic()
