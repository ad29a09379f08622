"""One trial: runs a job under a schedule's strikes until it is complete.

Moments are read from the store, victims from the process table; a stopped worker goes on after its
pause, whatever is struck meanwhile. A driver that was killed, or that stands still, is followed by
the same command; whoever holds the last epoch is the driver that counts. ``Trial.run`` ends with
every process of the trial ended, also when it fails.
"""

from __future__ import annotations

import json
import math
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rdu_batch.job.run_paths import SUCCESS
from rdu_batch.runner.epochs import last_epoch, read_owner
from rdu_batch.runner.run_layout import (
    COMMITS_FOLDER,
    SEGMENTS_FOLDER,
    SegmentName,
    numbers_in,
)
from rdu_batch.storage.store import open_store
from tests.runner.kill_schedules.processes import (
    Handle,
    SessionOf,
    sessions_of,
    state_of,
    take_hold,
    wait_for,
)
from tests.runner.kill_schedules.schedule import Schedule, Strike
from tests.runner.kill_schedules.stage import ROWS_PER_SHARD, Job, Stage

FENCED = 14
#: Beside 0: another driver holds the output, or took it over.
GOOD_ENDS = (0, FENCED)


@dataclass
class DriverRun:
    """One process of ``rdu-batch run``, with what it said in files."""

    process: subprocess.Popen[bytes]
    out: Path
    err: Path
    #: Its handle while it is stopped by a strike.
    stopped: Handle | None = None
    was_killed: bool = False
    #: The epoch that it held when another took over while it was stopped.
    lost_epoch: int | None = None

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def said(self) -> str:
        return self.err.read_text()


@dataclass
class Trial:
    """Runs one schedule on an output of its own."""

    stage: Stage
    schedule: Schedule
    folder: Path
    #: What was really struck, in words.
    hits: list[str] = field(default_factory=list)
    drivers: list[DriverRun] = field(default_factory=list)

    def __post_init__(self) -> None:
        one = self.schedule
        self.job: Job = self.stage.job_of(one.session, one.is_sampled, one.store)
        self.output = self.stage.new_folder(one.store)
        self._store = open_store(self.output)
        self._held: list[Handle] = []
        self._pauses: list[tuple[float, Handle]] = []

    def run(self) -> None:
        """Strike until the job is complete; every driver has ended then, and no session lives."""
        try:
            self._start_driver()
            for strike in self.schedule.strikes:
                self._await_moment(strike)
                if self._is_over():
                    break
                self._strike(strike)
            self._let_all_end()
        finally:
            self._end_all()

    # -- moments

    def num_rows_durable(self) -> int:
        """Rows that lie in the store, in committed shards or in segments."""
        size = ROWS_PER_SHARD[self.schedule.session]
        committed = set(numbers_in(self._store.list_names(COMMITS_FOLDER)))
        rows = {row for shard in committed for row in range(shard * size, (shard + 1) * size)}
        for name in self._store.list_names(SEGMENTS_FOLDER, recursive=True):
            segment = SegmentName.parse(name)
            if segment is not None:
                rows |= set(range(segment.first_row, segment.end_row))
        return min(len(rows), self.job.num_rows)

    def _await_moment(self, strike: Strike) -> None:
        num_rows = strike.share * self.job.num_rows
        if num_rows:
            self._await(lambda: self.num_rows_durable() >= num_rows, f"{num_rows:.1f} rows durable")
        if strike.victim != "driver":
            # A session that is killed before any other was ever open ends the job, rightly: none
            # may ever open.
            self._await(lambda: "is ready" in self._current().said(), "an open session")
        until_s = time.monotonic() + strike.delay_s
        self._await(lambda: time.monotonic() > until_s, "the moment")

    def _await(self, condition: Callable[[], object], what: str) -> None:
        def look() -> bool:
            self._end_pauses(time.monotonic())
            return bool(condition()) or self._is_over()

        wait_for(look, what)

    def _end_pauses(self, now_s: float) -> None:
        """Let those workers go on whose pause is over; meanwhile others may be struck."""
        for until_s, handle in self._pauses:
            if until_s <= now_s:
                handle.send(signal.SIGCONT)
        self._pauses = [pause for pause in self._pauses if pause[0] > now_s]

    def _is_over(self) -> bool:
        """Whether all drivers that can still do something have ended."""
        return all(driver.has_ended or driver.stopped for driver in self.drivers)

    # -- strikes

    def _strike(self, strike: Strike) -> None:
        if strike.victim == "driver":
            self._strike_driver(strike)
            return
        self._await(lambda: self._strike_worker(strike), f"a living {strike.victim}")

    def _strike_worker(self, strike: Strike) -> bool:
        """Strike a session of the last epoch, or its actor; False if none lives now."""
        found = self._sessions()
        epoch = last_epoch(self._store)
        alive = [one for one in found if one.epoch == epoch and one.is_running()]
        if not alive:
            return False
        victim = alive[strike.choice % len(alive)]
        pid = victim.pid if strike.victim == "session" else victim.actor
        handle = take_hold(pid, lambda: victim in self._sessions())
        if handle is None:
            return False
        self._held.append(handle)
        if strike.blow == "KILL":
            return self._kill(handle, strike)
        if not self._stop(handle, strike):
            return False
        self._pauses.append((time.monotonic() + strike.pause_s, handle))
        return True

    def _strike_driver(self, strike: Strike) -> None:
        victim = self._current()
        handle = take_hold(victim.process.pid, lambda: not victim.has_ended)
        if handle is None:
            return
        self._held.append(handle)
        if strike.blow == "KILL":
            victim.was_killed = self._kill(handle, strike)
            victim.process.wait()
            self._start_driver()
        elif self._stop(handle, strike):
            victim.stopped = handle
            self._start_driver()
            self._wake_in_time(victim, strike)

    def _wake_in_time(self, victim: DriverRun, strike: Strike) -> None:
        rival = self.drivers[-1]
        epoch = last_epoch(self._store)
        if strike.waking == "watched":
            self._await(lambda: "watching" in rival.said(), "another driver that watches")
            self._wake(victim)
            self._await(lambda: rival.has_ended or last_epoch(self._store) > epoch, "a verdict")
        elif strike.waking == "overtaken":
            self._await(lambda: last_epoch(self._store) > epoch, "a takeover")
            self._wake(victim)

    def _wake(self, driver: DriverRun) -> None:
        if driver.stopped is None:
            return
        owned = self._epoch_of(driver)
        if owned is not None and owned < last_epoch(self._store):
            driver.lost_epoch = owned
        driver.stopped.send(signal.SIGCONT)
        driver.stopped = None

    def _sessions(self) -> list[SessionOf]:
        return sessions_of(self.stage.head, self.output)

    def _kill(self, handle: Handle, strike: Strike) -> bool:
        if not handle.send(signal.SIGKILL):
            return False
        wait_for(handle.has_ended, "the end of what was killed")
        self._note(handle, strike)
        return True

    def _stop(self, handle: Handle, strike: Strike) -> bool:
        if not handle.send(signal.SIGSTOP):
            return False
        wait_for(lambda: state_of(handle.pid) in ("T", "Z", ""), "what was stopped to stand still")
        if handle.has_ended():
            return False
        self._note(handle, strike)
        return True

    def _note(self, handle: Handle, strike: Strike) -> None:
        rows = f"{self.num_rows_durable()}/{self.job.num_rows} rows"
        how = f" {strike.waking}" if (strike.blow, strike.victim) == ("STOP", "driver") else ""
        self.hits.append(f"{strike.blow} {strike.victim} {handle.pid}{how} at {rows}")

    # -- drivers

    def _start_driver(self) -> None:
        command = self.stage.command(
            *("run", self.job.path, "--address", self.stage.address),
            *("--set", f"output.url={self.output}"),
            *("--set", f"workers.count={self.schedule.workers}"),
        )
        number = len(self.drivers)
        out, err = (self.folder / f"driver-{number}.{end}" for end in ("out", "err"))
        with out.open("wb") as to_out, err.open("wb") as to_err:
            process = subprocess.Popen(
                command, stdout=to_out, stderr=to_err, env=self.stage.environment
            )
        self.drivers.append(DriverRun(process, out, err))

    def _current(self) -> DriverRun:
        """The driver that counts: the one of the last epoch, before that the newest."""
        epoch = last_epoch(self._store)
        living = [one for one in self.drivers if not (one.has_ended or one.stopped)]
        owners = [one for one in living if epoch and self._epoch_of(one) == epoch]
        return (owners or living or self.drivers)[-1]

    def _epoch_of(self, driver: DriverRun) -> int | None:
        """The highest epoch that a driver took; none may have taken any."""
        for epoch in range(last_epoch(self._store), 0, -1):
            owner = read_owner(self._store, epoch)
            if owner is not None and owner.pid == driver.process.pid:
                return epoch
        return None

    def _let_all_end(self) -> None:
        self._await(self._is_over, "the end of the job")
        for driver in self.drivers:
            self._wake(driver)
        self._await(lambda: all(one.has_ended for one in self.drivers), "the end of who was paused")
        assert self._store.exists(SUCCESS), self.account()
        for driver in self.drivers:
            self._check_end(driver)
        left = f"the end of the sessions of {self.output}"
        self._end_pauses(math.inf)
        wait_for(lambda: not self._sessions(), left)

    def _check_end(self, driver: DriverRun) -> None:
        code = driver.process.returncode
        if driver.was_killed:
            assert code == -signal.SIGKILL, self.account()
            return
        wanted = (FENCED,) if driver.lost_epoch else GOOD_ENDS
        assert code in wanted, self.account()
        said = json.loads(driver.out.read_text().strip().splitlines()[-1])
        assert said["exit"] == code, self.account()
        assert "Traceback" not in driver.said(), self.account()

    def account(self) -> str:
        """What happened, for the message of a failure."""
        lines = [f"{self.schedule.name} on {self.output}", *self.hits]
        for driver in self.drivers:
            how = f"exit {driver.process.poll()}, lost epoch {driver.lost_epoch}"
            lines.append(f"-- driver {driver.process.pid}: {how}")
            lines += [driver.out.read_text()[-1000:], driver.said()[-3000:]]
        return "\n".join(lines)

    def _end_all(self) -> None:
        for handle in self._held:
            handle.send(signal.SIGCONT)
            handle.close()
        for driver in self.drivers:
            driver.process.kill()
            driver.process.wait()
