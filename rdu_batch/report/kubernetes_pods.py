"""Pods of a job on Kubernetes: the head's, the workers', and what each of them asks for. Pure."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from rdu_batch.report.kubernetes_names import name_of

if TYPE_CHECKING:
    from rdu_batch.job.spec import JobSpec, WorkersSpec
    from rdu_batch.report.kubernetes_text import Manifest

JOB_FOLDER: Final = "/etc/rdu-batch"
#: A node that is drained takes 30 s to say so.
_GRACE_S: Final = 60
#: Only small messages go through it; Ray's own choice, 30 % of the pod, has no room in /dev/shm.
_OBJECT_STORE_BYTES: Final = 256 << 20
_SHARED_MEMORY: Final = "512Mi"


@dataclass(frozen=True)
class Deployment:
    """What a job file does not say.

    Args:
        image: that has Ray and rdu_batch.
        ray_version: of the image.
        num_pods: worker pods.
        workers_per_pod: workers that share one.
        worker_memory: memory of one worker, as Kubernetes counts it.
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
    num_pods: int
    workers_per_pod: int = 1
    worker_memory: str = "8Gi"
    date: str | None = None
    schedule: str = "17 3 * * *"
    time_zone: str = "Etc/UTC"
    cluster: str = "ray"
    service_account: str | None = None
    secret: str | None = None
    queue: str | None = None
    spot: tuple[str, str] | None = None


def room_of_pod(workers: WorkersSpec) -> int | None:
    """How many workers Ray puts on one worker pod; None where they reserve nothing.

    A pod has whole CPUs, GPUs and other resources, at least what one worker reserves.
    """
    reserved = {"CPU": workers.cpus, "GPU": workers.gpus, **workers.resources}
    amounts = _amounts(workers)
    # Exact, as Ray counts: ten times 0.1 is 1.
    rooms = [int(amounts[name] / Fraction(str(one))) for name, one in reserved.items() if one]
    return min(rooms, default=None)


def head_group(spec: JobSpec, deployment: Deployment) -> Manifest:
    """The head's group of a RayCluster: the driver is there, and no worker."""
    container = {
        "name": "ray-head",
        "ports": [
            {"name": name, "containerPort": port}
            for name, port in (("gcs", 6379), ("dashboard", 8265), ("client", 10001))
        ],
        "resources": resources_of(2, "4Gi"),
    }
    parameters = {
        # No worker runs on the head, whose loss ends the try.
        "num-cpus": "0",
        "dashboard-host": "0.0.0.0",  # noqa: S104 - in the pod
        "object-store-memory": str(_OBJECT_STORE_BYTES),
    }
    return {"rayStartParams": parameters, "template": pod_of(spec, deployment, container)}


def worker_group(spec: JobSpec, deployment: Deployment) -> Manifest:
    """The workers' group of a RayCluster."""
    amounts = _amounts(spec.workers)
    memory = _times(deployment.worker_memory, deployment.workers_per_pod)
    resources = resources_of(amounts["CPU"], memory)
    if "GPU" in amounts:
        resources["requests"]["nvidia.com/gpu"] = str(amounts["GPU"])
        resources["limits"]["nvidia.com/gpu"] = str(amounts["GPU"])
    pod = pod_of(spec, deployment, {"name": "ray-worker", "resources": resources})
    if deployment.spot is not None:
        key, value = deployment.spot
        pod["spec"]["nodeSelector"] = {key: value}
        pod["spec"]["tolerations"] = [
            {"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"}
        ]
    group: Manifest = {
        "groupName": "workers",
        "replicas": deployment.num_pods,
        "minReplicas": deployment.num_pods,
        "maxReplicas": deployment.num_pods,
        "rayStartParams": {"object-store-memory": str(_OBJECT_STORE_BYTES)},
        "template": pod,
    }
    if spec.workers.resources:
        # Given, they replace what Ray would find by itself.
        group["resources"] = {name: str(amount) for name, amount in amounts.items()}
    return group


def pod_of(spec: JobSpec, deployment: Deployment, container: Manifest) -> Manifest:
    """A pod's template: one container of the image, with the job file in ``JOB_FOLDER``."""
    # Ray asks a driver to stop and kills it after 3 seconds, unless told otherwise.
    stop_wait = {"name": "RAY_JOB_STOP_WAIT_TIME_S", "value": "30"}
    container = {
        **container,
        "image": deployment.image,
        "env": [stop_wait, *container.get("env", [])],
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
    memory = {"medium": "Memory", "sizeLimit": _SHARED_MEMORY}
    pod: Manifest = {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "terminationGracePeriodSeconds": _GRACE_S,
        "containers": [container],
        "volumes": [
            {"name": "job", "configMap": {"name": name_of(spec.name, "ConfigMap")}},
            {"name": "shared-memory", "emptyDir": memory},
        ],
    }
    if deployment.service_account is not None:
        pod["serviceAccountName"] = deployment.service_account
    return {"spec": pod}


def resources_of(num_cpus: int, memory: str) -> Manifest:
    """What a container requests, and its limit of memory."""
    return {
        "requests": {"cpu": str(num_cpus), "memory": memory},
        # Memory alone: a limit of CPU would hold a session back in its own pod.
        "limits": {"memory": memory},
    }


def _amounts(workers: WorkersSpec) -> dict[str, int]:
    """What one worker pod has: nodes of Ray have whole amounts of everything."""
    gpus = {"GPU": math.ceil(workers.gpus)} if workers.gpus else {}
    custom = {name: math.ceil(amount) for name, amount in sorted(workers.resources.items())}
    return {"CPU": max(1, math.ceil(workers.cpus)), **gpus, **custom}


def _times(memory: str, factor: int) -> str:
    """``8Gi`` twice is ``16Gi``; another spelling of the same amount only where it must be."""
    if factor == 1:
        return memory
    found = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", memory)
    if found is None:
        raise ValueError(f"worker_memory is {memory!r}, wanted an amount such as 8Gi")
    amount = Fraction(found[1]) * factor
    return f"{amount if amount.denominator == 1 else float(amount)}{found[2]}"
