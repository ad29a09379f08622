"""The options that say where a job's workers run; shared by every verb that runs a job."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def executor_options(command: Command) -> Command:
    """Add ``--executor`` and ``--address`` to a command."""
    for option in (
        click.option(
            "--address",
            metavar="ADDRESS",
            help="Ray cluster: local starts one for this job, auto or host:port connects. "
            "[default: RAY_ADDRESS, then a running one, then local]",
        ),
        click.option(
            "--executor",
            type=click.Choice(["ray", "inline"]),
            default="ray",
            show_default=True,
            help="inline: one worker in this process, without Ray; nothing watches a row's time "
            "there.",
        ),
    ):
        command = option(command)
    return command
