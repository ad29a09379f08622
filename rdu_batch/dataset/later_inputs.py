"""Inputs that came after a plan was made: said, never taken in.

Does not: judge files that changed; each is checked against its pin where it is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rdu_batch.dataset.listing import list_inputs
from rdu_batch.errors import InputError

if TYPE_CHECKING:
    from rdu_batch.job.plan import Plan
    from rdu_batch.job.spec import JobSpec


def note_of_later_inputs(plan: Plan, spec: JobSpec) -> str | None:
    """What to say to whoever goes on with a job whose inputs grew; None where they did not.

    Lists the inputs. Where they cannot be listed any more the rows that are left will say so.
    """
    if spec.input.limit is not None:
        # The plan holds the first files only.
        return None
    try:
        num_later = len(list_inputs(spec.input.urls)) - plan.num_files
    except InputError:
        return None
    if num_later <= 0:
        return None
    return (
        f"note: input.urls means {plan.num_files + num_later:,} files now, and {plan.num_files:,} "
        "when this job was planned; what came since is not part of it, and wants an output of its "
        "own"
    )
