"""Names and labels of manifests, as Kubernetes and KubeRay's operator take them. Pure."""

from __future__ import annotations

import hashlib
from typing import Final

#: Longest names that the operator takes (its ``validation.go``): it adds to them.
MAX_NAME: Final = {"RayJob": 47, "RayCronJob": 36, "CronJob": 52, "ConfigMap": 63}
_MAX_LABEL: Final = 63
_DIGEST: Final = 8


def name_of(name: str, kind: str) -> str:
    """A job's name as a resource's: begins with a letter, and is as short as it must be.

    A name that had to be changed ends with a digest, so that two jobs do not become one.
    """
    return _fitted(name, MAX_NAME[kind])


def label_of(name: str) -> str:
    """A job's name as the value of a label: the same whatever kind of resource has it."""
    return _fitted(name, _MAX_LABEL)


def _fitted(name: str, limit: int) -> str:
    if name[0].isalpha() and not name.endswith("-") and len(name) <= limit:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST]
    named = name if name[0].isalpha() else f"job-{name}"
    return f"{named[: limit - _DIGEST - 1].rstrip('-')}-{digest}"
