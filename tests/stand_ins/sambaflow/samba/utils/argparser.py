"""`parse_app_args`: the program's flags and the framework's, under sub-commands [T; ALCF]."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from sambaflow.samba.samba_session import SESSION

ParserFn = Callable[[argparse.ArgumentParser], None]
COMMANDS = ("compile", "run", "test", "measure-performance")


def parse_app_args(
    argv: Sequence[str] | None = None,
    common_parser_fn: ParserFn | None = None,
    run_parser_fn: ParserFn | None = None,
    test_parser_fn: ParserFn | None = None,
    dev_mode: bool = False,
) -> argparse.Namespace:
    """Parse a command line; `.command` is the sub-command [T: generative_inference.py, lenet.py].

    The program's flags come after the framework's and may replace one of the same name, as LeNet's
    `--batch-size` does. Flags are known in full only, in the spelling in which they were added.
    """
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    for command in COMMANDS:
        own = commands.add_parser(command, conflict_handler="resolve", allow_abbrev=False)
        add_common_flags(own)
        if command == "compile":
            add_compile_flags(own)
        else:
            add_run_flags(own)
        for add in (
            common_parser_fn,
            run_parser_fn if command == "run" else None,
            test_parser_fn if command == "test" else None,
        ):
            if add is not None:
                add(own)
    args = parser.parse_args(sys.argv[1:] if argv is None else list(argv))
    SESSION.setup(args)
    return args


def add_common_flags(parser: argparse.ArgumentParser) -> None:
    """Add the framework's flags of every command."""
    parser.add_argument("-b", "--batch-size", type=int, default=1)
    parser.add_argument("--inference", action="store_true")
    parser.add_argument("--log-level", default="info")
    parser.add_argument("--debug", action="store_true")
    parser.add_argument("--data-parallel", action="store_true")
    parser.add_argument("--mapping", choices=("section", "spatial"), default="section")


def add_compile_flags(parser: argparse.ArgumentParser) -> None:
    """Add the framework's flags of `compile`."""
    parser.add_argument("--pef-name")
    parser.add_argument("--output-folder", default="./out")
    parser.add_argument("--num-tiles", type=int, choices=(1, 2, 4, 8), default=4)
    parser.add_argument("--n-chips", type=int, choices=range(1, 9), default=1)
    parser.add_argument("--arch", choices=("sn10", "sn20", "sn30", "sn40"))
    for level in ("o0", "o1", "o3"):
        parser.add_argument(f"--{level}", f"-{level}", action="store_true")
    parser.add_argument("--optimization-rules")
    parser.add_argument("--resources-scaling-factors", nargs=3, type=float)
    parser.add_argument("--compiler-configs-file")
    parser.add_argument("--mac-v1", action="store_true")
    parser.add_argument("--mac-v2", action="store_true")
    parser.add_argument("--mac-human-decision")
    parser.add_argument("-ws", "--world-size", type=int)
    parser.add_argument("--tensor-parallel", choices=("batch", "weight"))
    parser.add_argument("--target-sambaflow-version")


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """Add the framework's flags of `run`: only the PEF is required [T: hello_world/README]."""
    parser.add_argument("-p", "--pef", required=True)
    parser.add_argument("--reduce-on-rdu", action="store_true")
