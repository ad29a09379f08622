"""``rdu-batch schema``: the JSON Schema of job files, for editors and checkers."""

from __future__ import annotations

import click

from rdu_batch.job.loading import job_schema_text


@click.command()
def schema() -> None:
    """Print the JSON Schema of job files.

    Name it in the first line of a job file, and an editor completes and checks the rest:
    `# yaml-language-server: $schema=job.schema.json`
    """
    click.echo(job_schema_text(), nl=False)
