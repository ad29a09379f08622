"""What the options of ``render k8s`` may hold: what Kubernetes would refuse is refused before.

Promises: each check returns the value as it was given, or says what was found and what is wanted
(``click.BadParameter``: exit 2). Does not: know what is in a cluster.
"""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Final

import click

Check = Callable[[click.Context, click.Parameter, Any], Any]

_MONTHS: Final = (
    "jan",
    "feb",
    "mar",
    "apr",
    "may",
    "jun",
    "jul",
    "aug",
    "sep",
    "oct",
    "nov",
    "dec",
)
_DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
#: Name, least and greatest number, and names for numbers, of each field of a schedule.
_FIELDS: Final[tuple[tuple[str, int, int, tuple[str, ...]], ...]] = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 6, _DAYS),
)
_UNITS: Final[dict[str, int]] = {
    **dict(zip(("", "k", "M", "G", "T"), (1000**i for i in range(5)), strict=True)),
    **dict(zip(("Ki", "Mi", "Gi", "Ti"), (1024**i for i in range(1, 5)), strict=True)),
}
#: Ray's own processes want so much of a pod.
_LEAST_MEMORY: Final = 2**30
_SUBDOMAIN: Final = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_LABEL: Final = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_LABEL_KEY: Final = rf"(?=[^/]{{1,253}}/|[^/]*$)({_SUBDOMAIN}/)?{_LABEL}"


def _checked(is_right: Callable[[str], bool], wanted: str) -> Check:
    def check(_context: click.Context, _parameter: click.Parameter, text: str | None) -> str | None:
        if text is not None and not is_right(text):
            raise click.BadParameter(f"found {text!r}; wanted {wanted}")
        return text

    return check


def _matches(pattern: str, most: int = 1000) -> Callable[[str], bool]:
    return lambda text: len(text) <= most and re.fullmatch(pattern, text) is not None


def _is_memory(text: str) -> bool:
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([A-Za-z]*)", text)
    if found is None or found[2] not in _UNITS:
        return False
    return Fraction(found[1]) * _UNITS[found[2]] >= _LEAST_MEMORY


def _is_time_zone(text: str) -> bool:
    if re.fullmatch(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*", text) is None or text == "localtime":
        return False
    # A machine without time zones cannot tell.
    known = zoneinfo.available_timezones()
    return text in known or not known


def schedule(_context: click.Context, _parameter: click.Parameter, text: str) -> str:
    """Five fields of cron, each as Kubernetes and KubeRay read it."""
    fields = text.split()
    if len(fields) != len(_FIELDS):
        zone = ", and the time zone by --time-zone" if "TZ=" in text else ""
        raise click.BadParameter(
            f"found {text!r}; wanted five fields (minute, hour, day of the month, month, day of "
            f"the week), such as '17 3 * * *'{zone}"
        )
    for field, (name, least, most, names) in zip(fields, _FIELDS, strict=True):
        if not all(_is_range(part, least, most, names) for part in field.split(",")):
            named = f" or {names[0]} to {names[-1]}" if names else ""
            raise click.BadParameter(
                f"found {field!r} as {name} in {text!r}; wanted {least} to {most}{named}, *, or "
                "ranges, lists and steps of them (1-5, 1,15, */2)"
            )
    return text


def _is_range(text: str, least: int, most: int, names: tuple[str, ...]) -> bool:
    base, slash, step = text.partition("/")
    if slash and not (re.fullmatch("[0-9]{1,4}", step) and int(step) > 0):
        return False
    if base in ("*", "?"):
        return True
    numbers = []
    for end in base.split("-"):
        if end.lower() in names:
            numbers.append(least + names.index(end.lower()))
        elif re.fullmatch("[0-9]{1,4}", end):
            numbers.append(int(end))
        else:
            return False
    return (
        len(numbers) <= 2
        and numbers == sorted(numbers)
        and least <= numbers[0] <= numbers[-1] <= most
    )


def spot_label(
    _context: click.Context, _parameter: click.Parameter, text: str | None
) -> tuple[str, str] | None:
    """LABEL=VALUE as its two parts; None for none."""
    if text is None:
        return None
    key, _, value = text.partition("=")
    if not (re.fullmatch(_LABEL_KEY, key) and re.fullmatch(_LABEL, value)):
        raise click.BadParameter(
            f"found {text!r}; wanted LABEL=VALUE, as nodes are labelled, such as "
            "karpenter.sh/capacity-type=spot"
        )
    return key, value


image = _checked(
    _matches(r"[A-Za-z0-9][-A-Za-z0-9_.:/@]*"),
    "the name of an image, such as example.com/rdu-batch:1",
)
ray_version = _checked(_matches(r"[0-9]+\.[0-9]+\.[0-9A-Za-z.]+"), "a version such as 2.60.0")
memory = _checked(
    _is_memory, "an amount of memory as Kubernetes writes it, 1Gi or more, such as 8Gi or 8000M"
)
time_zone = _checked(_is_time_zone, "a time zone by its name, such as Europe/Berlin or Etc/UTC")
cluster = _checked(
    _matches("[a-z]([-a-z0-9]*[a-z0-9])?", 53),
    "the name of a RayCluster: up to 53 lower case letters, digits and hyphens, a letter first",
)
resource_name = _checked(
    _matches(_SUBDOMAIN, 253), "a name of Kubernetes: lower case letters, digits, hyphens and dots"
)
queue = _checked(
    _matches(_SUBDOMAIN, 63),
    "the name of a queue: up to 63 lower case letters, digits, hyphens and dots",
)
