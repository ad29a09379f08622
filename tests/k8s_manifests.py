"""What the tests of ``render k8s`` share: the program, its documents, KubeRay's schemas."""

import contextlib
import functools
import io
import os
import subprocess
from pathlib import Path

import jsonschema
import yaml

from rdu_batch.cli.main import run

FOLDER = Path(__file__).parent.parent / "deploy" / "k8s"
CRDS = os.environ.get("KUBERAY_CRDS")
RENDERED = [*sorted(FOLDER.glob("ray*job*.yaml")), FOLDER / "cronjob.yaml"]
IMAGE = ("--image", "a")
DATED = (*IMAGE, "--date", "2026-11-22")


def documents(text):
    """The YAML documents of a text."""
    return list(yaml.safe_load_all(text))


def render(*arguments, cwd=FOLDER):
    """``rdu-batch render k8s`` in this process: exit code, standard output and standard error."""
    out, told = io.StringIO(), io.StringIO()
    with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(told):
        code = run(["render", "k8s", *map(str, arguments)])
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), told.getvalue())


def job_with(folder, old, new):
    """The example's job file with one text of it changed."""
    text = (FOLDER / "nightly.yaml").read_text()
    assert old in text
    path = folder / "job.yaml"
    path.write_text(text.replace(old, new))
    return path


def strict(schema):
    """A CRD's schema as JSON Schema that refuses unknown keys; defaults are filled in before."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {
        key: strict(value) for key, value in schema.items() if key != "x-kubernetes-validations"
    }
    properties = made.get("properties")
    if isinstance(properties, dict) and made.get("type") == "object":
        if not made.get("x-kubernetes-preserve-unknown-fields"):
            made.setdefault("additionalProperties", False)
        with_default = {name for name, one in properties.items() if "default" in one}
        if isinstance(made.get("required"), list):
            made["required"] = [name for name in made["required"] if name not in with_default]
    if made.pop("x-kubernetes-int-or-string", False):
        made.pop("type", None)
        made["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    return made


@functools.cache
def validator(kind):
    """Of a kind of KubeRay, by its CRD."""
    crd = yaml.load(
        (Path(CRDS) / f"ray.io_{kind.lower()}s.yaml").read_text(), Loader=yaml.CSafeLoader
    )
    (version,) = (one for one in crd["spec"]["versions"] if one["name"] == "v1")
    schema = strict(version["schema"]["openAPIV3Schema"])
    # The API server knows these of every kind.
    schema["properties"]["metadata"] = {"type": "object"}
    return jsonschema.Draft202012Validator(schema)


def ray_job_specs(manifest):
    """The RayJobSpec in a manifest of KubeRay."""
    spec = manifest["spec"]
    return spec["jobTemplate"] if manifest["kind"] == "RayCronJob" else spec
