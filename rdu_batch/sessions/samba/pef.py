"""The PEF: SambaFlow's compiled graphs, and the note of what it was compiled as.

An artifact of kind ``samba`` is the tutorial's folder ``<output-folder>/<pef-name>/`` with the rest
of the model beside the PEF: the file is named after the artifact's folder, so compiling to
``out/inference`` makes ``out/inference/inference.pef``.

Promises: a PEF that is there decides whether compiling succeeded, as SambaNova advises; logs of a
failed one are in the error. Does not: run anything.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rdu_batch.errors import ArtifactError, RduBatchError
from rdu_batch.sessions.samba.flow import check_can_compile, load_sambaflow
from rdu_batch.sessions.samba.forms import FORMS

if TYPE_CHECKING:
    import argparse

    from rdu_batch.sessions.artifact import Artifact, LocalArtifact
    from rdu_batch.sessions.compile_settings import CompileSettings
    from rdu_batch.sessions.samba.flow import SambaFlow
    from rdu_batch.sessions.samba.forms import Graphs

NOTE_FILE: Final = "samba.json"
NOTE_VERSION: Final = 1
#: How much of the end of each of the compiler's logs goes into an error.
_LOG_TAIL_BYTES: Final = 2000


@dataclass(frozen=True)
class PefNote:
    """``samba.json``: which file is the PEF, and what it was compiled as."""

    #: Name of the PEF in the artifact's folder.
    pef: str
    #: ``single``: one static graph over all positions; ``cached``: several with a key/value cache.
    graph: str
    #: Whether it was compiled for inference alone; otherwise it has backward sections too, which
    #: no session runs.
    inference: bool
    batch_size: int
    max_seq_length: int
    #: Further words on SambaFlow's command line.
    flags: tuple[str, ...]
    sambaflow_version: str
    #: ``cached``: static lengths of the prefill graphs, ascending, the last is max_seq_length.
    prefill_lengths: tuple[int, ...] = ()
    version: int = NOTE_VERSION

    def write(self, folder: Path) -> None:
        """Write it to the artifact's folder."""
        (folder / NOTE_FILE).write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, local: LocalArtifact) -> PefNote:
        """Read an artifact's.

        Raises:
            ArtifactError: it has none, or a damaged one, or one that is not of this artifact, or
                of another version or form of graphs.
        """
        try:
            leaves = json.loads(local.path(NOTE_FILE).read_bytes())
            lengths = tuple(map(int, leaves.get("prefill_lengths", ())))
            note = cls(**{**leaves, "flags": tuple(leaves["flags"]), "prefill_lengths": lengths})
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ArtifactError(
                f"{local.artifact.url}: {NOTE_FILE} cannot be read ({error!r}); compile the model "
                "again"
            ) from error
        if (note.version, note.batch_size) != (NOTE_VERSION, 1) or note.graph not in list(FORMS):
            raise ArtifactError(
                f"{local.artifact.url}: {NOTE_FILE} of version {note.version} with graph "
                f"{note.graph!r} and batch size {note.batch_size}; this program runs version "
                f"{NOTE_VERSION}, graph {' or '.join(FORMS)}, batch size 1; compile the model again"
            )
        note._check_lengths(local.artifact)
        return note

    def _check_lengths(self, artifact: Artifact) -> None:
        """Refuse lengths that the artifact and the form of graphs cannot have."""
        length, lengths = self.max_seq_length, self.prefill_lengths
        if self.graph == "cached":
            ascending = lengths == tuple(sorted({one for one in lengths if one > 0}))
            possible = ascending and lengths[-1:] == (length,)
        else:
            possible = lengths == ()
        if length != artifact.max_seq_length or not possible:
            raise ArtifactError(
                f"{artifact.url}: {NOTE_FILE} says {self.graph} graphs of {length} positions with "
                f"prefill lengths {list(lengths)}, the artifact has {artifact.max_seq_length} "
                "positions; compile the model again"
            )


def pef_name(out_url: str) -> str:
    """Name of the PEF, without its ending: the last part of the artifact's URL."""
    last = out_url.rstrip("/").rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-.") or "model"


def compile_argv(name: str, output_folder: Path, note: PefNote) -> list[str]:
    """SambaFlow's own command line to compile; its session takes place and target from it."""
    inference = ["--inference"] if note.inference else []
    return [
        "compile",
        *inference,
        *("--batch-size", str(note.batch_size)),
        *("--max_seq_length", str(note.max_seq_length)),
        *("--pef-name", name),
        *("--output-folder", str(output_folder)),
        *("--log-level", "error"),
        *note.flags,
    ]


def run_argv(pef: Path, note: PefNote) -> list[str]:
    """SambaFlow's own command line to run, for inference however the PEF was compiled."""
    return [
        *("run", "--inference"),
        *("--batch-size", str(note.batch_size)),
        *("--max_seq_length", str(note.max_seq_length)),
        *("--log-level", "error"),
        *("--pef", str(pef)),
    ]


def add_own_flags(parser: argparse.ArgumentParser) -> None:
    """The program's own flags, which SambaFlow's parser is told of; the tutorial's spelling."""
    parser.add_argument("--max_seq_length", type=int)


def set_up(flow: SambaFlow, argv: list[str], graphs: type[Graphs]) -> None:
    """Give SambaFlow its command line, before anything is traced."""
    args = flow.parse_app_args(argv=argv, common_parser_fn=add_own_flags)
    if graphs.needs_setup:
        flow.samba.session.setup(args)


class PefCompiler:
    """Compiles one model to one PEF; a process can compile or run nothing else afterwards."""

    def __init__(self, flow: SambaFlow, note: PefNote) -> None:
        """``note`` says what the PEF is to be."""
        self._flow = flow
        self._note = note

    @classmethod
    def of(cls, config: Any, settings: CompileSettings, out_url: str) -> PefCompiler:
        """Check, before the model is loaded, that there can be a PEF of it.

        Raises:
            UsageError: more positions than a graph can have. Ends the command (exit 2).
            ArtifactError: no SambaFlow here, or no patch for this model (exit 8).
        """
        check_can_compile()
        flow = load_sambaflow()
        FORMS[settings.graphs].check(config, settings)
        note = PefNote(
            pef=f"{pef_name(out_url)}.pef",
            graph=settings.graphs,
            inference=settings.inference,
            batch_size=1,
            max_seq_length=settings.max_seq_length,
            flags=settings.samba_flags,
            sambaflow_version=flow.version,
            prefill_lengths=settings.static_lengths,
        )
        return cls(flow, note)

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the PEF besides the model; its name does not."""
        leaves = asdict(self._note)
        del leaves["pef"]
        if not self._note.prefill_lengths:
            # A single graph is what it was before there were others.
            del leaves["prefill_lengths"]
        return leaves

    def compile(self, folder: Path, dtype: str) -> str:
        """Compile the model whose config and weights lie in ``folder``; put PEF and note there.

        Gives back what to say of it.

        Raises:
            ArtifactError: SambaFlow made no PEF. Ends the command (exit 8).
        """
        note = self._note
        name = Path(note.pef).stem
        with tempfile.TemporaryDirectory(prefix="rdu_batch-pef-") as temporary:
            failure: Exception | None = None
            try:
                self._compile(folder, dtype, compile_argv(name, Path(temporary), note))
            except RduBatchError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever was raised, the PEF decides
                failure = error
            pef = Path(temporary) / name / f"{name}.pef"
            if not pef.is_file():
                raise _no_pef(pef, failure) from failure
            shutil.move(pef, folder / note.pef)
        note.write(folder)
        return f"compile: {note.pef}, by SambaFlow {note.sambaflow_version}"

    def _compile(self, folder: Path, dtype: str, argv: list[str]) -> None:
        graphs = FORMS[self._note.graph]
        set_up(self._flow, argv, graphs)
        graphs.compile(self._flow, folder, dtype, self._note)


def _no_pef(pef: Path, failure: Exception | None) -> ArtifactError:
    said = "without an error" if failure is None else f"{type(failure).__name__}: {failure}"
    lines = [f"SambaFlow compiled no PEF ({said}); wanted {pef.name}; nothing was published"]
    for log in sorted(pef.parent.glob("*.log")):
        tail = log.read_bytes()[-_LOG_TAIL_BYTES:].decode("utf-8", "replace").strip()
        lines.append(f"the end of {log.name}:\n{tail}")
    return ArtifactError("\n".join(lines))
