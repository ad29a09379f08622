"""``rdu-batch render k8s JOB_FILE``: a job as manifests for Kubernetes."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rdu_batch.api import load_job
from rdu_batch.cli import render_options as checks
from rdu_batch.errors import UsageError

if TYPE_CHECKING:
    from rdu_batch.job.spec import JobSpec

KINDS = ("rayjob", "cronjob", "raycronjob")


@click.group()
def render() -> None:
    """Write a job in the words of another system; prints text, starts nothing."""


@render.command()
@click.argument("job_file", metavar="JOB_FILE", type=click.Path(readable=False))
@click.option(
    "--image",
    required=True,
    callback=checks.image,
    help="Image with Ray and rdu_batch; see deploy/Dockerfile.",
)
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
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Worker pods. [default: enough for the job's own workers]",
)
@click.option(
    "--worker-memory",
    default="8Gi",
    show_default=True,
    callback=checks.memory,
    help="Memory of one worker; a pod has it for each that it has room for.",
)
@click.option(
    "--schedule",
    default="17 3 * * *",
    show_default=True,
    callback=checks.schedule,
    help="Five fields of cron.",
)
@click.option(
    "--time-zone",
    default="Etc/UTC",
    show_default=True,
    callback=checks.time_zone,
    help="Of the schedule, and of the day before it.",
)
@click.option(
    "--cluster",
    default="ray",
    show_default=True,
    callback=checks.cluster,
    help="RayCluster of the cronjob.",
)
@click.option(
    "--service-account",
    callback=checks.resource_name,
    help="Of all pods: how they reach stores without secrets.",
)
@click.option(
    "--secret",
    callback=checks.resource_name,
    help="Secret whose keys become environment variables of all pods.",
)
@click.option("--queue", callback=checks.queue, help="Queue of Kueue, for a rayjob.")
@click.option(
    "--spot",
    metavar="LABEL=VALUE",
    callback=checks.spot_label,
    help="Nodes for workers alone, tainted alike.",
)
@click.option(
    "--ray-version",
    callback=checks.ray_version,
    help="Of the image. [default: the one installed here]",
)
def k8s(
    job_file: str,
    kinds: tuple[str, ...],
    date: str | None,
    workers: int | None,
    ray_version: str | None,
    queue: str | None,
    **options: Any,
) -> int:
    """Print manifests for KubeRay 1.7, for `kubectl apply -f -`.

    The job file goes into a ConfigMap as it is. Each of its URLs must be one of a store. What runs
    every night fills {date} with the day before its tick, which output.url must hold.
    """
    from rdu_batch.report import kubernetes
    from rdu_batch.report.kubernetes_pods import Deployment
    from rdu_batch.report.kubernetes_text import to_yaml

    spec = _spec(job_file, kinds, date)
    _check_paths(spec, job_file)
    if queue is not None and tuple(kinds) != ("rayjob",):
        raise UsageError("--queue is for a rayjob alone: Kueue queues what starts now")
    # A cronjob submits to a cluster whose pods are there.
    asks_for_pods = set(kinds) != {"cronjob"}
    num_pods, workers_per_pod = _pods_of(spec, job_file, workers) if asks_for_pods else (0, 1)
    deployment = Deployment(
        ray_version=ray_version or importlib.metadata.version("ray"),
        num_pods=num_pods,
        workers_per_pod=workers_per_pod,
        date=date,
        queue=queue,
        **options,
    )
    manifests = [kubernetes.config_map(spec, Path(job_file).read_text("utf-8"))]
    made = {
        "rayjob": kubernetes.ray_job,
        "cronjob": kubernetes.cron_job,
        "raycronjob": kubernetes.ray_cron_job,
    }
    manifests += [made[kind](spec, deployment) for kind in dict.fromkeys(kinds)]
    click.echo(to_yaml(manifests), nl=False)
    return 0


def _spec(job_file: str, kinds: tuple[str, ...], date: str | None) -> JobSpec:
    """The job; of one that runs every night, an output for each night is wanted."""
    nightly = [kind for kind in kinds if kind != "rayjob"]
    if not nightly:
        return load_job(job_file, date=date)
    if date is not None and "rayjob" not in kinds:
        raise UsageError(
            f"--date is for a rayjob: a {nightly[0]} fills {{date}} by itself, with the day before "
            "its tick. For one day render --kind rayjob"
        )
    today = dt.date.today()  # noqa: DTZ011 - any day will do
    days = [(today - dt.timedelta(days=ago)).isoformat() for ago in (0, 1)]
    specs = [load_job(job_file, date=day) for day in days]
    if specs[0].output.url == specs[1].output.url:
        raise UsageError(
            f"{job_file}: output.url is {specs[0].output.url} every night, and one folder holds "
            f"one job: the second night of the {nightly[0]} would find the first one's. Put "
            "{date} (or {yesterday}) in it, and in input.urls"
        )
    return load_job(job_file, date=date) if "rayjob" in kinds else specs[0]


def _check_paths(spec: JobSpec, job_file: str) -> None:
    from rdu_batch.report import kubernetes

    local = kubernetes.local_paths(spec)
    if local:
        raise UsageError(
            f"{job_file} names paths of this machine: {', '.join(local)}. A pod sees stores: name "
            "them by URL (s3://..., gs://...), or as file:///path where the image has them"
        )


def _pods_of(spec: JobSpec, job_file: str, num_pods: int | None) -> tuple[int, int]:
    """How many worker pods, and how many workers each of them is to have memory for."""
    from rdu_batch.report.kubernetes_pods import room_of_pod

    room = room_of_pod(spec.workers)
    if room is None:
        raise UsageError(
            f"{job_file} has workers that reserve nothing: Ray would put them all on one pod, even "
            "the head. Give workers.cpus, workers.gpus or workers.resources"
        )
    count = spec.workers.count if isinstance(spec.workers.count, int) else spec.workers.max
    if count is None and num_pods is None:
        raise UsageError(
            f"{job_file} has workers.count auto and no workers.max: say how many worker pods there "
            "are to be, with --workers N"
        )
    workers_per_pod = room if count is None else min(room, count)
    if num_pods is None:
        num_pods = math.ceil((count or 1) / workers_per_pod)
    return num_pods, workers_per_pod
