"""Kills real processes at an exact store operation; put this folder on PYTHONPATH to arm it.

Python imports a module of this name at its start, so every process of a run has it: the driver,
Ray's workers, session processes. CRASH_POINT is JSON: the operation and a pattern of the object's
name, before or after it, on which occurrence, and whom to kill (driver, actor, session). The kill
is a SIGKILL, once a run, and leaves a file, so that a test can assert that the moment was met.
"""

import functools
import json
import os
import re
import signal
from pathlib import Path

#: Operations of a store that change something, and where each has the object's name.
OPERATIONS = {"put_whole": 0, "put_file": 0, "create_once": 0, "copy": 1}


def _command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


class CrashPoint:
    """One kill, shared by all processes of a run through a folder of marks."""

    def __init__(self, point: dict[str, str | int]) -> None:
        self.point = point
        self.folder = Path(str(point["folder"]))
        command_line = _command_line(os.getpid())
        if " run " in command_line and "session_process" not in command_line:
            (self.folder / "driver.pid").write_text(str(os.getpid()))

    def pass_by(self, operation: str, name: str, moment: str) -> None:
        """Kill, if this is the moment."""
        point = self.point
        here = (operation, moment) == (point["operation"], point["moment"])
        if here and re.search(str(point["name"]), name) and self._is_its_turn():
            (self.folder / "crashed").write_text(f"{point['phase']} {point['victim']}")
            self._kill()

    def _is_its_turn(self) -> bool:
        """Number this occurrence by creating the next free mark; true for the one wanted."""
        number = 1
        while True:
            try:
                (self.folder / f"seen-{number}").touch(exist_ok=False)
            except FileExistsError:
                number += 1
            else:
                return number == self.point["occurrence"]

    def _kill(self) -> None:
        me = os.getpid()
        victims = {
            "session": me,
            "actor": os.getppid(),
            "driver": int((self.folder / "driver.pid").read_text()),
        }
        victim = victims[str(self.point["victim"])]
        pidfd = os.pidfd_open(victim)
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        if victim != me:
            # Nothing of this process may happen after its victim's death: stand still until the
            # death of the parent, or of all of Ray with the driver, takes this process too.
            signal.pause()

    def wrap(self, store_class: type) -> None:
        """Put the moment before and after every operation of a store class."""
        for operation, name_index in OPERATIONS.items():
            original = getattr(store_class, operation)

            @functools.wraps(original)
            def passing(store, *arguments, _original=original, _of=(operation, name_index)):
                operation, name_index = _of
                self.pass_by(operation, arguments[name_index], "before")
                result = _original(store, *arguments)
                self.pass_by(operation, arguments[name_index], "after")
                return result

            setattr(store_class, operation, passing)


if "CRASH_POINT" in os.environ:
    from rdu_batch.storage.local_store import LocalStore

    CrashPoint(json.loads(os.environ["CRASH_POINT"])).wrap(LocalStore)
