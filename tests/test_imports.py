"""The import rules of the rooms, read from the source, so that no wall moves by drift."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "rdu_batch"
ROOMS = ("job", "storage", "dataset", "sessions", "runner", "report", "cli")

#: Which rooms and packages each room may import; `errors` and the standard library always.
MAY_IMPORT = {
    "job": {"pydantic", "pydantic_core", "yaml", "jinja2"},
    "storage": {"job", "fsspec"},
    "dataset": {"storage", "job", "numpy", "xxhash", "zstandard", "pyarrow"},
    "sessions": {
        *("storage", "job", "torch", "transformers", "huggingface_hub", "safetensors", "jinja2"),
        *("sambaflow", "rdu_engine", "tokenizers"),
    },
    "runner": {
        *("job", "storage", "dataset", "sessions", "report", "ray"),
        *("zstandard", "pyarrow"),  # what parts are packed with
        *("yaml", "requests"),  # a job file that is shipped; what Ray's HTTP client raises
        "grpc",  # to ask a head of Ray whether it lives
        "opentelemetry",  # spans of leases, where a collector is named
    },
    "report": {"job", "storage", "rich", "yaml"},
    "cli": {"api", "job", "storage", "dataset", "sessions", "runner", "report", "click"},
}
#: Packages that cost seconds: no verb loads one before it needs it.
HEAVY = {"ray", "torch", "transformers"}


def _imports(path: Path) -> set[str]:
    """First names (or `rdu_batch.room`) imported by a file, type-checking blocks left out."""
    found = set()
    for node in _runtime_nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def _runtime_nodes(node: ast.AST):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield child
        yield from _runtime_nodes(child)


def _files():
    return [(room, path) for room in ROOMS for path in sorted((PACKAGE / room).rglob("*.py"))]


@pytest.mark.parametrize(
    ("room", "path"), _files(), ids=lambda value: value.stem if isinstance(value, Path) else value
)
def test_a_room_imports_only_what_its_row_of_the_table_allows(room, path):
    """Imports go one way: cli, runner, {sessions, dataset, report}, storage, job."""
    allowed = MAY_IMPORT[room] | {room}
    for name in _imports(path):
        first, _, rest = name.partition(".")
        if first == "rdu_batch":
            target = rest.split(".")[0]
            assert target in allowed | {"errors", ""}, f"{path}: imports {name}"
        else:
            assert first in allowed or first in sys.stdlib_module_names, f"{path}: imports {name}"


def test_only_the_ray_executor_and_the_way_to_it_import_ray():
    """Every other file of the runner can be used without Ray."""
    users = {
        path.name
        for _, path in _files()
        if any(name.split(".")[0] == "ray" for name in _imports(path))
    }
    assert users == {
        "ray_address.py",
        "ray_connection.py",
        "ray_counting.py",
        "ray_executor.py",
        "ray_jobs.py",
        "ray_metrics.py",
    }


@pytest.mark.parametrize(("package", "user"), [("sambaflow", "flow"), ("rdu_engine", "engine")])
def test_only_one_file_imports_a_runtime_of_the_rdu(package, user):
    """Every other kind of session works where there is no RDU."""
    users = {
        path.name
        for _, path in _files()
        if any(name.split(".")[0] == package for name in _imports(path))
    }
    assert users == {f"{user}.py"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["run", "--help"],
        ["compile", "--help"],
        ["plan", "{job}"],
        ["status", "{output}"],
        ["schema"],
    ],
    ids=lambda arguments: arguments[0] + (arguments[-1] if "--help" in arguments else ""),
)
def test_light_verbs_start_without_torch_ray_or_transformers(arguments, tmp_path):
    """Help, plan and status answer at once because nothing heavy is imported."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "one"}\n')
    job = tmp_path / "job.yaml"
    job.write_text(
        f"version: 1\nname: light\ninput: {{urls: ['{rows}']}}\nprompt: {{field: text}}\n"
        f"session: {{kind: fake}}\noutput: {{url: '{tmp_path}/out'}}\n"
    )
    filled = [text.format(job=job, output=tmp_path / "out") for text in arguments]
    code = (
        "import sys; from rdu_batch.cli.main import run; code = run(sys.argv[1:]); "
        f"loaded = sorted({HEAVY!r} & sys.modules.keys()); "
        "print(loaded, file=sys.stderr); sys.exit(code or len(loaded))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *filled], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_nothing_heavy_is_imported_at_the_top_of_a_light_room():
    """Importing job, storage, dataset, report or the scheduler loads neither Ray nor torch."""
    code = (
        "import sys, rdu_batch.job.loading, rdu_batch.dataset.planning, rdu_batch.storage.store, "
        "rdu_batch.runner.scheduler, rdu_batch.report.progress; "
        f"print(sorted({HEAVY!r} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_package_alone_loads_nothing_of_itself():
    """`import rdu_batch` costs nothing; its functions are imported when they are used."""
    code = (
        "import sys, rdu_batch; dir(rdu_batch); "
        "print(sorted(name for name in sys.modules if name.startswith('rdu_batch.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
