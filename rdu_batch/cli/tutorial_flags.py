"""Flags of the tutorial's program, and of the framework under it: either spelling, one meaning.

SambaFlow's own flags go on to SambaFlow as they were typed, and other kinds of session refuse them
(``CompileSettings``). ``--log-level`` alone is taken by every kind: it decides nothing that is
compiled. Does not: read files, or know what a flag does to a PEF.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from rdu_batch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

Command = TypeVar("Command", bound="Callable[..., Any]")

#: What SambaFlow is told anyway, and so what the tutorial's commands need not change.
DEFAULT_LOG_LEVEL: Final = "error"
#: SambaFlow's flags with one value or more, in the order in which they are passed on.
_WITH_VALUES: Final = (
    *("arch", "num_tiles", "n_chips", "resources_scaling_factors"),
    *("optimization_rules", "compiler_configs_file"),
)
_SWITCHES: Final = ("o0", "o1")


def spelled(name: str, *short: str, **settings: Any) -> Callable[[Command], Command]:
    """A click option in both spellings, ``--a_b`` and ``--a-b``."""
    spellings = dict.fromkeys([f"--{name}", f"--{name.replace('_', '-')}"])
    return click.option(*spellings, *short, name, **settings)


def batch_size_option(command: Command) -> Command:
    """Add ``--batch-size``, of which only 1 is taken."""
    option = spelled(
        "batch_size", "-b", type=int, default=1, help="Only 1: a session holds one row at a time."
    )
    return option(command)


def check_batch_size(batch_size: int) -> None:
    """Refuse any other than 1.

    Raises:
        UsageError: it is another. Ends the command (exit 2).
    """
    if batch_size != 1:
        raise UsageError(f"--batch_size {batch_size}: a session holds one row; use 1")


def log_level_option(command: Command) -> Command:
    """Add ``--log-level``."""
    option = spelled(
        "log_level",
        default=DEFAULT_LOG_LEVEL,
        show_default=True,
        help="What SambaFlow says; other kinds take it, too, and it changes nothing there.",
    )
    return option(command)


def sambaflow_options(command: Command) -> Command:
    """Add the flags of SambaFlow's compiler."""
    for option in (
        spelled("o1", "-o1", is_flag=True, help="SambaFlow: operators fused by rules."),
        spelled("o0", "-o0", is_flag=True, help="SambaFlow: each operator a section of its own."),
        spelled("optimization_rules", metavar="FILE", help="SambaFlow: rules of -o1."),
        spelled("compiler_configs_file", metavar="FILE", help="SambaFlow: low-level settings."),
        spelled(
            "resources_scaling_factors", nargs=3, metavar="A B C", callback=_numbers,
            help="SambaFlow: three numbers.",
        ),
        spelled("n_chips", type=click.IntRange(min=1), help="SambaFlow: RDUs of one PEF."),
        spelled("num_tiles", type=click.IntRange(min=1), help="SambaFlow: tiles of one RDU."),
        spelled("arch", help="SambaFlow: the RDU to compile for, such as sn20."),
    ):  # fmt: skip
        command = option(command)
    return command


def samba_flags(options: dict[str, Any], *, for_samba: bool) -> tuple[str, ...]:
    """The words that go on to SambaFlow: those typed, in an order of their own.

    Args:
        options: of the command.
        for_samba: pass on a ``--log-level``, too, if it is not the usual one.
    """
    words: list[str] = []
    for name in _WITH_VALUES:
        value = options[name]
        if value is not None:
            values = value if isinstance(value, tuple) else (value,)
            words += [f"--{name.replace('_', '-')}", *map(str, values)]
    words += [f"--{name}" for name in _SWITCHES if options[name]]
    if for_samba and options["log_level"] != DEFAULT_LOG_LEVEL:
        words += ["--log-level", str(options["log_level"])]
    return tuple(words)


def _numbers(
    _context: click.Context, _parameter: click.Parameter, words: tuple[str, ...] | None
) -> tuple[str, ...] | None:
    """Check that they are numbers; they go on as they were typed."""
    for word in words or ():
        try:
            float(word)
        except ValueError as error:
            raise click.BadParameter(f"{word!r} is no number; wanted three") from error
    return words


class TutorialRun(click.Command):
    """The tutorial's form of ``run``: its errors name this form, and say what is compile's."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Parse the words; ``--help`` of the hint is this form's."""
        try:
            return super().make_context(f"{info_name} --inference", args, parent, **extra)
        except click.NoSuchOption as error:
            from rdu_batch.cli.compile import compile_command

            of_compile = {flag for one in compile_command.params for flag in one.opts}
            # click cuts -o1 to -o.
            if error.option_name not in {*of_compile, "-o"}:
                raise
            flag = "-o0/-o1" if error.option_name == "-o" else error.option_name
            raise click.UsageError(
                f"{flag} belongs to `rdu-batch compile`; the PEF holds it, so leave it out here",
                ctx=error.ctx,
            ) from error


def whole_numbers(text: str | None, flag: str) -> tuple[int, ...]:
    """Numbers with commas between.

    Raises:
        UsageError: it is something else. Ends the command (exit 2).
    """
    if text is None:
        return ()
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"{flag} {text}: wanted numbers with commas, such as 128,512") from error
