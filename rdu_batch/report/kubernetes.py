"""Kubernetes manifests of a job: RayJob, CronJob and RayCronJob, for KubeRay 1.7. Pure.

Promises: what is rendered names no secret's value; names are those that Kubernetes and the operator
allow; one Ray worker pod for each worker of the job, beside a head on which no worker runs. Does
not: know a cluster; what only its operator knows (image, service account, queue) is given.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import yaml

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rdu_batch.job.spec import JobSpec

#: Longest names that the operator takes (its ``validation.go``): it adds to them.
MAX_NAME: Final = {"RayJob": 47, "RayCronJob": 36, "CronJob": 52, "ConfigMap": 63}
JOB_FOLDER: Final = "/etc/rdu-batch"
#: The day before the tick, in the shell of the pod.
_YESTERDAY: Final = '"$(date --utc --date=yesterday +%F)"'
#: A node that is drained takes 30 s to say so.
_GRACE_S: Final = 60

Manifest = dict[str, Any]


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks; nothing as an alias."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


@dataclass(frozen=True)
class Deployment:
    """What a job file does not say.

    Args:
        image: that has Ray and rdu_batch.
        ray_version: of the image.
        num_workers: worker pods.
        worker_memory: memory of one, as Kubernetes counts it.
        date: of the RayJob; None where the job file needs none.
        schedule: of the CronJobs, five fields of cron.
        time_zone: of the schedule.
        cluster: a RayCluster that is there, to which the CronJob submits.
        service_account: whose rights the pods have; how they reach stores without secrets.
        secret: whose keys become environment variables, such as credentials of stores.
        queue: of Kueue; None for none.
        spot: label of nodes for workers alone, such as ``("cloud/market", "spot")``.
    """

    image: str
    ray_version: str
    num_workers: int
    worker_memory: str = "8Gi"
    date: str | None = None
    schedule: str = "17 3 * * *"
    time_zone: str = "Etc/UTC"
    cluster: str = "ray"
    service_account: str | None = None
    secret: str | None = None
    queue: str | None = None
    spot: tuple[str, str] | None = None


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
        "spec": _ray_job_spec(spec, deployment, deployment.date),
    }


def cron_job(spec: JobSpec, deployment: Deployment) -> Manifest:
    """Every night a pod that submits the day before to a RayCluster that is there, and waits."""
    submit = (
        f"exec rdu-batch submit {JOB_FOLDER}/job.yaml --date {_YESTERDAY} "
        f"--address http://{deployment.cluster}-head-svc:8265"
    )
    pod = _pod(
        spec,
        deployment,
        {"name": "submit", "command": ["sh", "-c", submit], "resources": _resources(1, "1Gi")},
    )
    pod["spec"]["restartPolicy"] = "Never"
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
            "jobTemplate": {
                "spec": {
                    "backoffLimit": 2,
                    # Complete with too many dead letters, wrong job file, no input, no artifact:
                    # a second try ends alike.
                    "podFailurePolicy": {
                        "rules": [
                            {
                                "action": "FailJob",
                                "onExitCodes": {"operator": "In", "values": [2, 3, 4, 5, 8, 10]},
                            }
                        ]
                    },
                    "template": pod,
                }
            },
        },
    }


def ray_cron_job(spec: JobSpec, deployment: Deployment) -> Manifest:
    """The same by KubeRay alone, a cluster for each night; alpha in 1.7, behind a feature gate."""
    metadata = _metadata(spec, "RayCronJob")
    metadata["labels"]["rdu-batch/stability"] = "alpha"
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCronJob",
        "metadata": metadata,
        "spec": {
            "schedule": deployment.schedule,
            "timeZone": deployment.time_zone,
            "jobTemplate": _ray_job_spec(spec, deployment, _YESTERDAY),
        },
    }


def local_paths(spec: JobSpec) -> list[str]:
    """What the job names by a path of one machine; a pod would look for it in its image."""
    named = [*spec.input.urls, spec.input.since, spec.session.artifact, spec.output.url]
    return [url for url in named if url is not None and "://" not in url]


def to_yaml(manifests: Sequence[Manifest]) -> str:
    """YAML documents, one after the other."""
    return "---\n".join(
        yaml.dump(manifest, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
        for manifest in manifests
    )


def name_of(name: str, kind: str) -> str:
    """A job's name as a resource's: begins with a letter, and is as short as it must be.

    A shortened name ends with a digest, so that two jobs do not become one.
    """
    named = name if name[0].isalpha() else f"job-{name}"
    named = re.sub(r"-+$", "", named)
    limit = MAX_NAME[kind]
    if len(named) <= limit:
        return named
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{named[: limit - 9].rstrip('-')}-{digest}"


def _metadata(spec: JobSpec, kind: str) -> Manifest:
    labels = {"app.kubernetes.io/name": "rdu-batch", "rdu-batch/job": name_of(spec.name, kind)}
    return {"name": name_of(spec.name, kind), "labels": labels}


def _ray_job_spec(spec: JobSpec, deployment: Deployment, date: str | None) -> Manifest:
    dated = f" --date {date}" if date else ""
    found: Manifest = {
        "entrypoint": f"rdu-batch run {JOB_FOLDER}/job.yaml --address auto --ci none{dated}",
        # The operator submits by HTTP: a submitter's pod would kill the job with its log stream.
        "submissionMode": "HTTPMode",
        # Each try has a new cluster, and goes on from what is durable.
        "backoffLimit": 2,
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": 600,
        "rayClusterSpec": {
            "rayVersion": deployment.ray_version,
            "headGroupSpec": _head(spec, deployment),
            "workerGroupSpecs": [_workers(spec, deployment)],
        },
    }
    if spec.limits.deadline_s is not None:
        # After the job's own deadline: that one ends with what is finished reported.
        found["activeDeadlineSeconds"] = math.ceil(spec.limits.deadline_s) + 600
    if deployment.queue is not None:
        found["suspend"] = True  # Kueue lets it go when there is room.
    return found


def _head(spec: JobSpec, deployment: Deployment) -> Manifest:
    container = {
        "name": "ray-head",
        "ports": [
            {"name": name, "containerPort": port}
            for name, port in (("gcs", 6379), ("dashboard", 8265), ("client", 10001))
        ],
        "resources": _resources(2, "4Gi"),
    }
    # No worker runs on the head, whose loss ends the try.
    parameters = {"num-cpus": "0", "dashboard-host": "0.0.0.0"}  # noqa: S104 - in the pod
    return {"rayStartParams": parameters, "template": _pod(spec, deployment, container)}


def _workers(spec: JobSpec, deployment: Deployment) -> Manifest:
    workers = spec.workers
    num_cpus = max(1, math.ceil(workers.cpus))
    resources = _resources(num_cpus, deployment.worker_memory)
    if workers.gpus:
        resources["requests"]["nvidia.com/gpu"] = str(math.ceil(workers.gpus))
        resources["limits"]["nvidia.com/gpu"] = str(math.ceil(workers.gpus))
    pod = _pod(spec, deployment, {"name": "ray-worker", "resources": resources})
    if deployment.spot is not None:
        key, value = deployment.spot
        pod["spec"]["nodeSelector"] = {key: value}
        pod["spec"]["tolerations"] = [
            {"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"}
        ]
    group: Manifest = {
        "groupName": "workers",
        "replicas": deployment.num_workers,
        "minReplicas": deployment.num_workers,
        "maxReplicas": deployment.num_workers,
        "rayStartParams": {},
        "template": pod,
    }
    custom = {name: f"{amount:g}" for name, amount in sorted(workers.resources.items())}
    if custom:
        # Given, they replace what Ray would find by itself.
        gpus = {"GPU": str(math.ceil(workers.gpus))} if workers.gpus else {}
        group["resources"] = {"CPU": str(num_cpus), **gpus, **custom}
    return group


def _pod(spec: JobSpec, deployment: Deployment, container: Manifest) -> Manifest:
    container = {
        **container,
        "image": deployment.image,
        # Ray asks a driver to stop and kills it after 3 seconds, unless told otherwise.
        "env": [{"name": "RAY_JOB_STOP_WAIT_TIME_S", "value": "30"}],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "job", "mountPath": JOB_FOLDER, "readOnly": True},
            {"name": "shared-memory", "mountPath": "/dev/shm"},  # noqa: S108 - Ray's own place
        ],
    }
    if deployment.secret is not None:
        container["envFrom"] = [{"secretRef": {"name": deployment.secret}}]
    pod: Manifest = {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "terminationGracePeriodSeconds": _GRACE_S,
        "containers": [container],
        "volumes": [
            {"name": "job", "configMap": {"name": name_of(spec.name, "ConfigMap")}},
            {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "512Mi"}},
        ],
    }
    if deployment.service_account is not None:
        pod["serviceAccountName"] = deployment.service_account
    return {"spec": pod}


def _resources(num_cpus: int, memory: str) -> Manifest:
    return {
        "requests": {"cpu": str(num_cpus), "memory": memory},
        # Memory alone: a limit of CPU would hold a session back in its own pod.
        "limits": {"memory": memory},
    }
