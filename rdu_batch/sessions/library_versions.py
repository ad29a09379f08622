"""Are the libraries of this node those an artifact was made with?

Promises: looks at installed metadata; imports none of the libraries it asks about. Does not: check
what compiled graphs need; see ``inductor/target.py``.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from rdu_batch.errors import ArtifactError

if TYPE_CHECKING:
    from rdu_batch.sessions.artifact import Artifact


def check_transformers(artifact: Artifact) -> None:
    """Refuse an artifact that another transformers made: tokens or logits could differ.

    Raises:
        ArtifactError: says which version to install. Ends the job (exit 8).
    """
    wanted = artifact.target.transformers_version
    try:
        found = version("transformers")
    except PackageNotFoundError:
        found = "none"
    if wanted and wanted != found:
        raise ArtifactError(
            f"{artifact.url}: made with transformers {wanted}, this node has {found}; run "
            f"`pip install transformers=={wanted}` here, or compile the model again with this one"
        )
