"""How long a run takes to end once it is asked to, in every phase of it.

    python tests/benchmarks/stop_times.py [--rounds 5] [--seed 1]

Each round starts a run in a process of its own, waits for a phase to begin (as its standard error
tells), lets a random part of that phase pass, sends SIGTERM or SIGINT, and measures until the
process is gone. The design allows 2.5 s (Ray's own job stop kills after 3). A run that ended
otherwise than it should (exit 12, a result of its epoch once it had one, finished rows kept) is an
error. The last line of stdout is JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ALLOWED_S = 2.5
NUM_ROWS = 4000
JOB = """
version: 1
name: stop-times
input: {{urls: ["{rows}"]}}
prompt: {{field: text}}
session: {{kind: fake}}
output: {{url: "{output}", rows_per_shard: 400}}
workers: {{count: 2}}
"""


@dataclass(frozen=True)
class Phase:
    """A part of a run: the words on standard error that it begins with, and how long it takes."""

    name: str
    begins_with: str
    #: The signal comes at a random moment within so many seconds of its beginning.
    lasts_s: float
    executor: tuple[str, ...] = ("--address", "local")


PHASES = (
    Phase("planning", "planning", 0.5),
    Phase("reaching Ray", "connecting to Ray", 3.0),
    Phase("opening sessions", "starting 2 workers", 2.0),
    Phase("rows", "worker 0 is ready", 4.0),
    Phase("rows, inline", "worker 0 is ready", 2.0, ("--executor", "inline")),
)


def write_job(folder: Path) -> Path:
    """Enough small rows that the job outlives every moment drawn, and inputs that take planning."""
    rows = folder / "rows"
    rows.mkdir()
    for number in range(NUM_ROWS):
        row = json.dumps({"text": f"{number} [[fake:sleep 0.05]]"})
        (rows / f"{number:05d}.jsonl").write_text(row + "\n")
    job = folder / "job.yaml"
    job.write_text(JOB.format(rows=rows, output=folder / "out"))
    return job


def stop_once(job: Path, output: Path, phase: Phase, draw: random.Random) -> float:
    """Seconds from the signal to the end of the process."""
    command = [sys.executable, "-m", "rdu_batch", "run", str(job), *phase.executor]
    running = subprocess.Popen(
        [*command, "--set", f"output.url={output}"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    told = ""
    while phase.begins_with not in told:
        line = running.stderr.readline() if running.stderr else ""
        if not line:
            raise SystemExit(f"{phase.name} never began: {told}")
        told += line
    time.sleep(draw.uniform(0, phase.lasts_s))
    asked_s = time.monotonic()
    running.send_signal(draw.choice([signal.SIGTERM, signal.SIGINT]))
    stdout, stderr = running.communicate(timeout=120)
    took_s = time.monotonic() - asked_s
    check(running.returncode, stdout, told + stderr, output, phase)
    return took_s


def check(code: int, stdout: str, stderr: str, output: Path, phase: Phase) -> None:
    """The exit code, the line of JSON and the result say the same."""
    problems = []
    if code != 12 or json.loads(stdout.splitlines()[-1])["exit"] != 12:
        problems.append(f"exit {code}, wanted 12")
    if "Traceback" in stderr:
        problems.append("a traceback")
    epochs = sorted(one.name for one in output.glob("_run/drivers/*[0-9].json"))
    results = sorted(one.name for one in output.glob("_run/results/*.json"))
    if epochs != results:
        problems.append(f"epochs {epochs}, results {results}")
    if problems:
        raise SystemExit(f"{phase.name}: {'; '.join(problems)}\n{stderr}{stdout}")


def main() -> None:
    """Every phase so many times; longest and median."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    draw = random.Random(chosen.seed)
    longest_s = {}
    with tempfile.TemporaryDirectory() as temporary:
        job = write_job(Path(temporary))
        for phase in PHASES:
            times_s = []
            for turn in range(chosen.rounds):
                output = Path(temporary, f"{phase.name}-{turn}")
                times_s.append(stop_once(job, output, phase, draw))
            longest_s[phase.name] = round(max(times_s), 2)
            told = ", ".join(f"{one:.2f}" for one in times_s)
            print(f"{phase.name:>18}  longest {max(times_s):5.2f} s of {told}")
    over = [name for name, seconds in longest_s.items() if seconds > ALLOWED_S]
    print(f"over {ALLOWED_S} s: {', '.join(over) or 'none'}")
    print(json.dumps({"longest_s": longest_s, "allowed_s": ALLOWED_S, "over": over}))


if __name__ == "__main__":
    main()
