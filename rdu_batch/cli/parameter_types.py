"""Types of arguments and options that several verbs share."""

from __future__ import annotations

import math
from typing import Any

import click
from click.shell_completion import CompletionItem


class FolderUrl(click.types.StringParamType):
    """The URL of a folder, any text; a shell completes the names of local folders."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Have the shell offer its folders."""
        del ctx, param
        return [CompletionItem(incomplete, type="dir")]


class FiniteRange(click.FloatRange):
    """A range of numbers, of which ``nan`` and ``inf`` are none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse what no clock can wait for, and else what the range refuses."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number
