"""Faults that a test injects: which exception, when, and for whom."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

PROGRAM = Path(__file__).parent / "tutorial_program.py"


def inject(monkeypatch: pytest.MonkeyPatch, *faults: dict[str, Any]) -> None:
    """Tell the stand-in of faults, in this process and those that it starts."""
    monkeypatch.setenv("SAMBAFLOW_STAND_IN_FAULTS", json.dumps(faults))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("hw_exception", "HwException"),
        ("tile_fault", "TileFaultException"),
        ("dram_ue", "DramUeException"),
        ("scratchpad_ue", "ScratchpadUeException"),
        ("d2d_ue", "D2dUeException"),
    ],
)
def test_a_broken_device_stays_broken(
    program: ModuleType,
    stand_in: ModuleType,
    pef: str,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    name: str,
) -> None:
    """The exception has its documented name, comes at its run, and at each run after."""
    inject(monkeypatch, {"kind": kind, "at_run": 2})
    _, outputs = program.traced(pef)
    program.step(outputs)
    for _ in range(2):
        with pytest.raises(getattr(stand_in, name), match=f"injected {kind} at run 2"):
            program.step(outputs)


def test_a_prompt_can_be_poison_and_the_next_is_sound(
    program: ModuleType, stand_in: ModuleType, pef: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A NumericalException belongs to its input; padding is not looked at."""
    inject(monkeypatch, {"kind": "numerical", "token_id": 33}, {"kind": "numerical", "token_id": 0})
    _, outputs = program.traced(pef)
    for _ in range(2):
        with pytest.raises(stand_in.NumericalException):
            program.step(outputs, [5, 33, 2])
    found_SV = program.logits_SV(outputs, [5, 2])
    torch.testing.assert_close(found_SV, program.reference_logits_SV([5, 2]))


def test_a_version_mismatch_can_be_injected(
    program: ModuleType, pef: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails the session, not the trace."""
    inject(monkeypatch, {"kind": "pef_version_mismatch"})
    with pytest.raises(
        RuntimeError, match=r"^Failed to Create Session on RDU: PEF version mismatch"
    ):
        program.traced(pef)


def test_a_hang_ends_after_its_time(
    program: ModuleType, pef: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hang of no length is a run like any other; with and without the interpreter held."""
    inject(
        monkeypatch,
        {"kind": "hang", "at_run": 1, "seconds": 0},
        {"kind": "hang", "at_run": 2, "seconds": 0, "hold_gil": True},
    )
    _, outputs = program.traced(pef)
    assert torch.equal(program.logits_SV(outputs), program.logits_SV(outputs))


def test_an_unknown_fault_is_a_mistake_of_the_test(
    program: ModuleType, pef: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A misspelt kind does not pass in silence."""
    inject(monkeypatch, {"kind": "hw_excepton"})
    with pytest.raises(ValueError, match=r"unknown fault.*hw_excepton"):
        program.traced(pef)


def test_a_fault_happens_once_over_all_processes(
    program: ModuleType, pef: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next process does not fail, and gives the tokens of a process without faults."""
    inject(monkeypatch, {"kind": "hw_exception", "at_run": 3, "once_file": str(tmp_path / "once")})
    _, outputs = program.traced(pef)
    with pytest.raises(RuntimeError, match="injected hw_exception at run 3"):
        program.generate(outputs, num_tokens=5)
    done = run_program(pef)
    assert done.returncode == 0, done.stderr
    tokens = json.loads(done.stdout.partition("tokens: ")[2])
    for cut in range(len(program.PROMPT), len(tokens)):
        assert tokens[cut] == int(program.reference_logits_SV(tokens[:cut])[-1].argmax())


def test_a_crash_ends_the_process_by_its_signal(pef: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a native fault would."""
    inject(monkeypatch, {"kind": "crash", "at_run": 2})
    assert run_program(pef).returncode == -signal.SIGSEGV


def run_program(pef: str) -> subprocess.CompletedProcess[str]:
    """The right program in a process of its own."""
    return subprocess.run(
        [sys.executable, str(PROGRAM), "run", "--inference", "--pef", pef],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
