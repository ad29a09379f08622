"""parse_app_args: sub-commands, and the flags of the framework beside those of the program."""

from __future__ import annotations

import argparse
from types import ModuleType

import pytest

COMPILE = (
    *("compile", "--inference", "--max_seq_length", "1024", "--batch-size", "1"),
    *("--arch", "sn20", "--pef-name=inference", "--output-folder=OUT", "--log-level=error"),
    *("--num-tiles", "4", "--resources-scaling-factors", "0.8", "0.8", "0.8"),
)


def add_own_flags(parser: argparse.ArgumentParser) -> None:
    """A program's flags; LeNet replaces the framework's batch size."""
    parser.add_argument("-b", "--batch-size", type=int, default=32)
    parser.add_argument("--max_seq_length", type=int, default=-1)


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """A program's flags of `run`."""
    parser.add_argument("--data_dir")


def test_the_documented_commands_parse(program: ModuleType) -> None:
    """The README's compile and run."""
    args = program.parse_app_args(
        argv=COMPILE,
        common_parser_fn=add_own_flags,
        run_parser_fn=add_run_flags,
    )
    assert (args.command, args.pef_name, args.batch_size) == ("compile", "inference", 1)
    args = program.parse_app_args(
        argv=["run", "--inference", "--data_dir", "D", "--max_seq_length", "1024", "-p", "P"],
        common_parser_fn=add_own_flags,
        run_parser_fn=add_run_flags,
    )
    assert (args.command, args.pef, args.data_dir, args.batch_size) == ("run", "P", "D", 32)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "run --inference",
        "run -p P -ws 2",
        "run -p P --max-seq-length 8",
        "compile --data_dir D",
        "compile --max_seq 8",
    ],
)
def test_flags_that_a_command_does_not_have_are_refused(program: ModuleType, line: str) -> None:
    """As argparse refuses: no PEF, no sub-command, another command's flag, another spelling."""
    with pytest.raises(SystemExit):
        program.parse_app_args(line.split(), add_own_flags, add_run_flags)
