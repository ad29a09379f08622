"""What ``run`` tells CI: a Markdown summary, a JUnit report, annotations; and ``--fail-on``."""

from __future__ import annotations

import functools
import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from rdu_batch.errors import Interrupted, RduBatchError
from rdu_batch.report.ci_page import github_annotations, junit_xml, summary_markdown
from rdu_batch.report.summary import EXIT_TOO_MANY_DEAD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rdu_batch.report.summary import Summary


@dataclass(frozen=True)
class CiOutput:
    """Where to say how a run ended, beside standard output and standard error."""

    summary_file: Path | None
    junit_file: Path | None
    ci: str
    fail_on: str
    only_json: bool = False

    def say(self, text: str, *, nl: bool = True) -> None:
        """Say something to people, unless nothing but the JSON line is wanted."""
        if not self.only_json:
            click.echo(text, err=True, nl=nl)

    def judged(self, summary: Summary) -> Summary:
        """The summary with the exit code that ``--fail-on`` asks for."""
        if self.fail_on == "any-dead" and summary.dead:
            return replace(summary, exit=EXIT_TOO_MANY_DEAD)
        if self.fail_on == "never" and summary.exit == EXIT_TOO_MANY_DEAD:
            return replace(summary, exit=0)
        return summary

    def judged_json(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """The same for the JSON object of a run that ended elsewhere."""
        code = told["exit"]
        if self.fail_on == "any-dead" and told.get("dead") and code == 0:
            code = EXIT_TOO_MANY_DEAD
        if self.fail_on == "never" and code == EXIT_TOO_MANY_DEAD:
            code = 0
        return {**told, "exit": code}

    def forget_earlier(self) -> None:
        """Remove the files that an earlier run left: a run that is killed tells of nothing."""
        for path in (self.summary_file, self.junit_file):
            if path is not None:
                with suppress(OSError):  # said where it is written
                    path.unlink(missing_ok=True)

    @contextmanager
    def telling_errors(self, title: str, **about: str) -> Iterator[None]:
        """An error that ends the run is told in every place, too.

        Args:
            title: of the run; see ``tell``.
            about: what the JSON line says besides: ``name`` and ``output``.
        """
        try:
            yield
        except RduBatchError as error:
            error.about = {**about, **error.about}
            self._tell_error(error, title)
            raise
        except KeyboardInterrupt:
            # Where nothing of a job is listening for it yet.
            stopped = Interrupted("stopped by Ctrl-C; run the same command again to go on")
            stopped.about = about
            self._tell_error(stopped, title)
            raise

    def _tell_error(self, error: RduBatchError, title: str) -> None:
        told = {"exit": error.exit_code, "error": type(error).__name__, "message": str(error)}
        self.tell({**error.about, **told}, title)

    def tell(self, told: Mapping[str, Any], title: str) -> None:
        """Write what was asked for.

        Args:
            told: the JSON object that ends standard output.
            title: the job's name and its date, or a submission's id.
        """
        is_github = self._is_github()
        if is_github:
            for command in github_annotations(told, title):
                click.echo(command, err=True)
        step_summary = os.environ.get("GITHUB_STEP_SUMMARY") if is_github else None
        summary = summary_markdown(told, title, fail_on=self.fail_on).encode()
        if step_summary:
            _write(Path(step_summary), summary, mode="ab")
        if self.summary_file is not None:
            _write(self.summary_file, summary)
        if self.junit_file is not None:
            _write(self.junit_file, junit_xml(told, title, fail_on=self.fail_on))

    def _is_github(self) -> bool:
        return self.ci == "github" or (
            self.ci == "auto" and os.environ.get("GITHUB_ACTIONS") == "true"
        )


#: For a verb without these options: annotations inside a runner of GitHub, and no more.
NO_CI_OUTPUT: Final = CiOutput(None, None, "auto", "limit")


def _write(path: Path, content: bytes, mode: str = "wb") -> None:
    """A file of ours that cannot be written is said, and changes no exit code."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open(mode) as file:
            file.write(content)
    except OSError as error:
        click.echo(f"rdu-batch: cannot write {path}: {error.strerror}", err=True)


def title_of(name: str, date: str | None) -> str:
    """What a run is called where people read of it: which job, and of which day."""
    return f"{name} {date}" if date else name


def ci_options(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options; it is given one ``CiOutput``, as ``ci_output``."""

    @functools.wraps(command)
    def told(
        *arguments: Any,
        summary_file: Path | None,
        junit_xml: Path | None,
        ci: str,
        fail_on: str,
        only_json: bool,
        **options: Any,
    ) -> int:
        output = CiOutput(summary_file, junit_xml, ci, fail_on, only_json)
        output.forget_earlier()
        return command(*arguments, ci_output=output, **options)

    path = click.Path(dir_okay=False, path_type=Path)
    for option in (
        click.option(
            "--fail-on",
            type=click.Choice(["limit", "any-dead", "never"]),
            default="limit",
            show_default=True,
            help="Dead letters that end with exit 5: more than limits.max_dead_rows, any, or none.",
        ),
        click.option(
            "--ci",
            type=click.Choice(["auto", "github", "none"]),
            default="auto",
            show_default=True,
            help="Annotations and a step summary, as GitHub takes them; auto: inside its runners.",
        ),
        click.option("--junit-xml", type=path, help="Write a JUnit report, which GitLab shows."),
        click.option("--summary-file", type=path, help="Write a summary in Markdown."),
        click.option(
            "--json",
            "only_json",
            is_flag=True,
            help="Nothing on standard error but errors; standard output is one JSON object anyway.",
        ),
    ):
        told = option(told)
    return told
