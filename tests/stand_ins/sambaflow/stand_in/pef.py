"""The stand-in's PEF: a JSON text with its own digest; the layout of folders is documented."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from sambaflow.stand_in.contracts import Contract, ContractError
from sambaflow.stand_in.settings import runtime_version

MAGIC = "stand-in PEF: no device ran or will run this"


def pef_path(output_folder: str, pef_name: str) -> Path:
    """`<output-folder>/<pef-name>/<pef-name>.pef` [T: lenet/README, ALCF], made absolute."""
    return Path(output_folder).absolute() / pef_name / f"{pef_name}.pef"


def write_pef(path: Path, content: dict[str, Any]) -> None:
    """Write a PEF and a log beside it [ALCF: <name>.samba.log]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    body = json.dumps({"version": runtime_version(), **content})
    digest = hashlib.sha256(body.encode()).hexdigest()
    path.write_text(json.dumps({"magic": MAGIC, "sha256": digest, "body": body}))
    path.with_suffix(".samba.log").write_text(f"stand-in: {path.name} written\n")


def read_pef(pef: str | Path) -> dict[str, Any]:
    """Read a PEF whole.

    Raises:
        ContractError: It is missing, cut short, changed, or no PEF of the stand-in.
    """
    path = Path(pef)
    if not str(pef) or not path.is_file():
        raise ContractError(
            Contract.PEF_FILE, f"no PEF at {str(pef)!r}", "the absolute path of a compiled PEF"
        )
    try:
        outer = json.loads(path.read_bytes())
        body = outer["body"]
        sound = outer["magic"] == MAGIC
        sound = sound and hashlib.sha256(body.encode()).hexdigest() == outer["sha256"]
    except (ValueError, KeyError, TypeError, AttributeError):
        sound, body = False, ""
    if not sound:
        raise ContractError(
            Contract.PEF_FILE, f"{path} is damaged or no PEF of the stand-in", "a whole PEF"
        )
    return json.loads(body)
