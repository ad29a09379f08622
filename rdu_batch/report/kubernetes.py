"""Kubernetes manifests of a job: RayJob, CronJob and RayCronJob, for KubeRay 1.7. Pure.

Promises: what is rendered names no secret's value; names are those that Kubernetes and the operator
allow; worker pods have room for the job's workers, beside a head on which no worker runs. Does not:
know a cluster; what only its operator knows (image, service account, queue) is given.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from rdu_batch.report.kubernetes_day import day_before_tick
from rdu_batch.report.kubernetes_names import label_of, name_of
from rdu_batch.report.kubernetes_pods import (
    JOB_FOLDER,
    head_group,
    pod_of,
    resources_of,
    worker_group,
)

if TYPE_CHECKING:
    from rdu_batch.job.spec import JobSpec
    from rdu_batch.report.kubernetes_pods import Deployment
    from rdu_batch.report.kubernetes_text import Manifest

#: Where Kubernetes tells a pod the name of its Job, which ends with the tick of the CronJob.
_JOB_NAME: Final = "metadata.labels['batch.kubernetes.io/job-name']"
_TICK_VARIABLE: Final = "JOB_NAME"
#: The operator gives all pods the RayCluster's name, which begins with that of the RayJob.
_CLUSTER_VARIABLE: Final = "RAY_CLUSTER_NAME"


def config_map(spec: JobSpec, job_file: str) -> Manifest:
    """The job file as it was written: ``{date}`` is filled when it runs."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(spec, "ConfigMap"),
        "data": {"job.yaml": job_file},
    }


def ray_job(spec: JobSpec, deployment: Deployment) -> Manifest:
    """One run on a Ray cluster of its own; a lost cluster is replaced, and the job goes on."""
    metadata = _metadata(spec, "RayJob")
    if deployment.date is not None:
        metadata["name"] = name_of(f"{spec.name}-{deployment.date}", "RayJob")
    if deployment.queue is not None:
        metadata["labels"]["kueue.x-k8s.io/queue-name"] = deployment.queue
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": metadata,
        "spec": _ray_job_spec(spec, deployment),
    }


def cron_job(spec: JobSpec, deployment: Deployment) -> Manifest:
    """Every night a pod that submits the day before to a RayCluster that is there, and waits."""
    job_spec = {
        "backoffLimit": 2,
        # Complete with too many dead letters, wrong job file, no input, no artifact: a second try
        # ends alike.
        "podFailurePolicy": {
            "rules": [
                {
                    "action": "FailJob",
                    "onExitCodes": {"operator": "In", "values": [2, 3, 4, 5, 8, 10]},
                }
            ]
        },
        "template": _submitting_pod(spec, deployment),
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": _metadata(spec, "CronJob"),
        "spec": {
            "schedule": deployment.schedule,
            "timeZone": deployment.time_zone,
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": 3600,
            "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 7,
            "jobTemplate": {"spec": job_spec},
        },
    }


def _submitting_pod(spec: JobSpec, deployment: Deployment) -> Manifest:
    submit = (
        f"{day_before_tick(_TICK_VARIABLE, deployment.time_zone)}\n"
        f'exec rdu-batch submit {JOB_FOLDER}/job.yaml --date "$day" '
        f"--address http://{deployment.cluster}-head-svc:8265\n"
    )
    container = {
        "name": "submit",
        "command": ["sh", "-c", submit],
        "env": [{"name": _TICK_VARIABLE, "valueFrom": {"fieldRef": {"fieldPath": _JOB_NAME}}}],
        "resources": resources_of(1, "1Gi"),
    }
    pod = pod_of(spec, deployment, container)
    pod["spec"]["restartPolicy"] = "Never"
    return pod


def ray_cron_job(spec: JobSpec, deployment: Deployment) -> Manifest:
    """The same by KubeRay alone, a cluster for each night; alpha in 1.7, behind a feature gate."""
    metadata = _metadata(spec, "RayCronJob")
    metadata["labels"]["rdu-batch/stability"] = "alpha"
    day, run = day_before_tick(_CLUSTER_VARIABLE, deployment.time_zone), _run(' --date "$day"')
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCronJob",
        "metadata": metadata,
        "spec": {
            "schedule": deployment.schedule,
            "timeZone": deployment.time_zone,
            "jobTemplate": {
                **_ray_job_spec(spec, deployment),
                "entrypoint": f"{day}\nexec {run}\n",
            },
        },
    }


def local_paths(spec: JobSpec) -> list[str]:
    """What the job names by a path of one machine; a pod would look for it in its image."""
    named = [*spec.input.urls, spec.input.since, spec.session.artifact, spec.output.url]
    return [url for url in named if url is not None and "://" not in url]


def _metadata(spec: JobSpec, kind: str) -> Manifest:
    labels = {"app.kubernetes.io/name": "rdu-batch", "rdu-batch/job": label_of(spec.name)}
    return {"name": name_of(spec.name, kind), "labels": labels}


def _run(dated: str) -> str:
    return f"rdu-batch run {JOB_FOLDER}/job.yaml --address auto --ci none{dated}"


def _ray_job_spec(spec: JobSpec, deployment: Deployment) -> Manifest:
    dated = f" --date {deployment.date}" if deployment.date else ""
    found: Manifest = {
        "entrypoint": _run(dated),
        # The operator submits by HTTP: a submitter's pod would kill the job with its log stream.
        "submissionMode": "HTTPMode",
        # Each try has a new cluster, and goes on from what is durable.
        "backoffLimit": 2,
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": 600,
        "rayClusterSpec": {
            "rayVersion": deployment.ray_version,
            "headGroupSpec": head_group(spec, deployment),
            "workerGroupSpecs": [worker_group(spec, deployment)],
        },
    }
    if spec.limits.deadline_s is not None:
        # After the job's own deadline: that one ends with what is finished reported.
        found["activeDeadlineSeconds"] = math.ceil(spec.limits.deadline_s) + 600
    if deployment.queue is not None:
        found["suspend"] = True  # Kueue lets it go when there is room.
    return found
