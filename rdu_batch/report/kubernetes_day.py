"""The day of a nightly run, in the shell of a pod: the one before its tick. Pure.

Promises: a pod that comes late, or is tried again after midnight, runs the tick's own day, and the
day is that of the schedule's time zone. Does not: know the tick of a run that was started by hand.
"""

from __future__ import annotations

from typing import Final

#: Zones in which GNU ``date`` tells the time also where no time zones are installed.
_UTC: Final = ("Etc/UTC", "UTC")
#: For ``sed``: ``nightly-29876543``, and ``nightly-29876543-x7k2q`` of a RayCluster.
_MINUTES_OF_NAME: Final = r"s/^.*-\([0-9]\{8\}\)\(-[a-z0-9]\{5\}\)\{0,1\}$/\1/p"


def day_before_tick(named_by: str, time_zone: str) -> str:
    """Shell that sets ``day``, as lines for POSIX ``sh`` with GNU ``date``.

    Kubernetes and KubeRay end the name of what a tick starts with the minutes since 1970 of its
    schedule, KubeRay with a word of its own after them. Where the name holds none, the run was
    started by hand: the tick is now.

    Args:
        named_by: variable of the pod that holds the name.
        time_zone: of the schedule, such as ``Asia/Tokyo``.
    """
    lines = [
        f"minutes=$(printf %s \"${named_by}\" | sed -n '{_MINUTES_OF_NAME}')",
        # A name with a date in it, such as made-up-20261122, holds less than 28000000 (in 2023).
        'if [ "${minutes:-0}" -gt 28000000 ]; then tick="@$((minutes * 60))"; else tick=now; fi',
        f'day=$(TZ={time_zone} date --date="$tick" +%F)',
        # By the calendar, for a day may have 23 hours.
        'day=$(date --utc --date="$day -1 day" +%F)',
    ]
    if time_zone not in _UTC:
        missing = f'echo "the image has no time zone {time_zone}: install tzdata in it" >&2; exit 2'
        lines.insert(0, f"if [ ! -e /usr/share/zoneinfo/{time_zone} ]; then {missing}; fi")
    return "\n".join(lines)
