"""``rdu-batch render k8s JOB_FILE``: a job as manifests for Kubernetes."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rdu_batch.api import load_job
from rdu_batch.errors import UsageError

if TYPE_CHECKING:
    from rdu_batch.job.spec import JobSpec

KINDS = ("rayjob", "cronjob", "raycronjob")


@click.group()
def render() -> None:
    """Write a job in the words of another system; prints text, starts nothing."""


@render.command()
@click.argument("job_file", metavar="JOB_FILE", type=click.Path(readable=False))
@click.option("--image", required=True, help="Image with Ray and rdu_batch; see deploy/Dockerfile.")
@click.option(
    "--kind",
    "kinds",
    type=click.Choice(KINDS),
    multiple=True,
    default=("rayjob",),
    show_default=True,
    help="rayjob: one run, now. cronjob: every night, on a RayCluster that is there. raycronjob: "
    "every night, a cluster each; alpha in KubeRay 1.7. May be repeated.",
)
@click.option("--date", metavar="YYYY-MM-DD", help="Fill {date} of a rayjob.")
@click.option("--workers", type=click.IntRange(min=1), help="Worker pods. [default: the job's own]")
@click.option("--worker-memory", default="8Gi", show_default=True, help="Memory of one.")
@click.option("--schedule", default="17 3 * * *", show_default=True, help="Five fields of cron.")
@click.option("--time-zone", default="Etc/UTC", show_default=True, help="Of the schedule.")
@click.option("--cluster", default="ray", show_default=True, help="RayCluster of the cronjob.")
@click.option("--service-account", help="Of all pods: how they reach stores without secrets.")
@click.option("--secret", help="Secret whose keys become environment variables of all pods.")
@click.option("--queue", help="Queue of Kueue, for a rayjob.")
@click.option("--spot", metavar="LABEL=VALUE", help="Nodes for workers alone, tainted alike.")
@click.option("--ray-version", help="Of the image. [default: the one installed here]")
def k8s(
    job_file: str,
    image: str,
    kinds: tuple[str, ...],
    date: str | None,
    workers: int | None,
    spot: str | None,
    ray_version: str | None,
    queue: str | None,
    **options: Any,
) -> int:
    """Print manifests for KubeRay 1.7, for `kubectl apply -f -`.

    The job file goes into a ConfigMap as it is. Each of its URLs must be one of a store.
    """
    from rdu_batch.report import kubernetes

    only_nightly = "rayjob" not in kinds
    # Every night has its own date: here any will do.
    any_day = dt.date.today().isoformat() if only_nightly else None  # noqa: DTZ011
    spec = load_job(job_file, date=date or any_day)
    local = kubernetes.local_paths(spec)
    if local:
        raise UsageError(
            f"{job_file} names paths of this machine: {', '.join(local)}. A pod sees stores: name "
            "them by URL (s3://..., gs://...), or as file:///path where the image has them"
        )
    if queue is not None and tuple(kinds) != ("rayjob",):
        raise UsageError("--queue is for a rayjob alone: Kueue queues what starts now")
    deployment = kubernetes.Deployment(
        image=image,
        ray_version=ray_version or importlib.metadata.version("ray"),
        num_workers=workers or _workers_of(spec, job_file),
        date=date,
        queue=queue,
        spot=_label(spot),
        **options,
    )
    manifests = [kubernetes.config_map(spec, Path(job_file).read_text("utf-8"))]
    made = {
        "rayjob": kubernetes.ray_job,
        "cronjob": kubernetes.cron_job,
        "raycronjob": kubernetes.ray_cron_job,
    }
    manifests += [made[kind](spec, deployment) for kind in dict.fromkeys(kinds)]
    click.echo(kubernetes.to_yaml(manifests), nl=False)
    return 0


def _workers_of(spec: JobSpec, job_file: str) -> int:
    count = spec.workers.count if isinstance(spec.workers.count, int) else spec.workers.max
    if count is None:
        raise UsageError(
            f"{job_file} has workers.count auto and no workers.max: say how many worker pods there "
            "are to be, with --workers N"
        )
    return count


def _label(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    key, equals, value = text.partition("=")
    if not (key and equals and value):
        raise UsageError(f"--spot: found {text!r}; wanted LABEL=VALUE, as nodes are labelled")
    return key, value
