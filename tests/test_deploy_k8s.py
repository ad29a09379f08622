"""``rdu-batch render k8s`` and the manifests of ``deploy/k8s/``, against what Kubernetes takes."""

import copy
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from rdu_batch.job.loading import load_spec
from rdu_batch.report.kubernetes import MAX_NAME, name_of

FOLDER = Path(__file__).parent.parent / "deploy" / "k8s"
CRDS = os.environ.get("KUBERAY_CRDS")
RENDERED = [*sorted(FOLDER.glob("ray*job*.yaml")), FOLDER / "cronjob.yaml"]
#: Of the kinds that Kubernetes itself knows.
KUBERNETES = "1.34"
needs_crds = pytest.mark.skipif(
    CRDS is None, reason="KUBERAY_CRDS names no folder with KubeRay's CRDs"
)
DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


def documents(text):
    return list(yaml.safe_load_all(text))


def render(*arguments, cwd=FOLDER):
    return subprocess.run(
        [sys.executable, "-m", "rdu_batch", "render", "k8s", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
    )


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


def validator(kind):
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


def test_the_examples_are_what_the_program_renders(tmp_path):
    """By their own script."""
    for name in ("render.sh", "nightly.yaml"):
        (tmp_path / name).write_bytes((FOLDER / name).read_bytes())
    program = tmp_path / "program"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m rdu_batch "$@"\n')
    program.chmod(0o755)
    subprocess.run(["sh", str(tmp_path / "render.sh"), str(program)], check=True)
    assert len(RENDERED) == 5
    for path in RENDERED:
        assert (tmp_path / path.name).read_text() == path.read_text(), path.name


@needs_crds
@pytest.mark.parametrize("kind", ["RayJob", "RayCronJob"])
def test_the_examples_are_valid_for_kuberay(kind):
    """By its CRDs, with unknown keys refused; a misspelt key or a number for a text is found."""
    check = validator(kind)
    found = [one for path in RENDERED for one in documents(path.read_text()) if one["kind"] == kind]
    assert found
    for manifest in found:
        assert [error.message for error in check.iter_errors(manifest)] == []
        misspelt = copy.deepcopy(manifest)
        spec = ray_job_specs(misspelt)
        spec["submisionMode"] = spec.pop("submissionMode")
        assert not check.is_valid(misspelt)
        number = copy.deepcopy(manifest)
        head = ray_job_specs(number)["rayClusterSpec"]["headGroupSpec"]
        head["rayStartParams"]["num-cpus"] = 0
        assert not check.is_valid(number)


@pytest.mark.parametrize("path", RENDERED, ids=lambda path: path.stem)
def test_the_examples_keep_the_rules_of_operator_and_kubernetes(path):
    """What schemas do not say (the operator's ``validation.go``), and what Kubernetes' own do."""
    for manifest in documents(path.read_text()):
        name = manifest["metadata"]["name"]
        assert DNS_1035.fullmatch(name), name
        assert len(name) <= MAX_NAME[manifest["kind"]]
        if manifest["apiVersion"] != "ray.io/v1":
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
            continue
        spec = ray_job_specs(manifest)
        assert spec["submissionMode"] == "HTTPMode"
        assert spec["shutdownAfterJobFinishes"], "wanted by suspend and by ttlSecondsAfterFinished"
        cluster = spec["rayClusterSpec"]
        assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        for group in cluster["workerGroupSpecs"]:
            assert group["minReplicas"] == group["replicas"] == group["maxReplicas"]
            assert not {"resources", "labels"} & group["rayStartParams"].keys()
        if manifest["kind"] == "RayCronJob":
            assert manifest["metadata"]["labels"]["rdu-batch/stability"] == "alpha"
            assert "TZ" not in manifest["spec"]["schedule"]
        for template in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}
            pod["spec"] = template["template"]["spec"]
            kubernetes_validate.validate(pod, KUBERNETES, strict=True)
            assert pod["spec"]["securityContext"]["runAsNonRoot"]
            assert pod["spec"]["terminationGracePeriodSeconds"] > 30, "a drained node takes 30 s"


def test_the_job_file_in_the_config_map_is_the_one_that_was_given():
    """To the byte: the pod runs what a person wrote."""
    for path in RENDERED:
        (found,) = (one for one in documents(path.read_text()) if one["kind"] == "ConfigMap")
        assert found["data"]["job.yaml"] == (FOLDER / "nightly.yaml").read_text()
        load_spec(found["data"]["job.yaml"], source="job.yaml", date="2026-11-22")


def test_every_night_is_submitted_with_its_own_date():
    """By the shell of the pod, for a scheduler knows no logical date."""
    (_, cron) = documents((FOLDER / "cronjob.yaml").read_text())
    (container,) = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    command = container["command"]
    stub = command[2].replace("exec rdu-batch", "exec printf '%s '")
    told = subprocess.run(
        [command[0], command[1], stub], capture_output=True, text=True, check=True
    )
    yesterday = subprocess.run(
        ["date", "--utc", "--date=yesterday", "+%F"], capture_output=True, text=True, check=True
    )
    assert f"submit /etc/rdu-batch/job.yaml --date {yesterday.stdout.strip()} " in told.stdout


@pytest.mark.parametrize("kind", sorted(MAX_NAME))
def test_a_name_is_as_short_as_it_must_be_and_two_jobs_stay_two(kind):
    """A digest keeps apart what a cut would make one."""
    long, other = "9" + "a" * 62, "9" + "a" * 61 + "b"
    for name in (long, other, "a-", "7"):
        assert DNS_1035.fullmatch(name_of(name, kind))
        assert len(name_of(name, kind)) <= MAX_NAME[kind]
    assert name_of(long, kind) != name_of(other, kind)
    assert name_of("nightly", kind) == "nightly"


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (("s3://corpus/reviews/", "reviews/"), [], "names paths of this machine: reviews/"),
        (("count: 8, ", ""), [], "--workers N"),
        (("", ""), ["--spot", "market"], "wanted LABEL=VALUE"),
        (("", ""), ["--kind", "cronjob", "--queue", "a"], "rayjob alone"),
    ],
)
def test_what_cannot_be_rendered_is_said(tmp_path, change, arguments, message):
    """With what to do about it."""
    job = tmp_path / "job.yaml"
    job.write_text((FOLDER / "nightly.yaml").read_text().replace(*change))
    done = render(job, "--image", "a", "--date", "2026-11-22", *arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_gpus_and_other_resources_are_asked_of_kubernetes_and_told_to_ray(tmp_path):
    """Ray finds a GPU by itself, but not beside resources that it is told of."""
    job = tmp_path / "job.yaml"
    text = (FOLDER / "nightly.yaml").read_text()
    job.write_text(text.replace("cpus: 2", "cpus: 0.5, gpus: 1, resources: {RDU: 2}"))
    done = render(job, "--image", "a", "--date", "2026-11-22", "--secret", "stores")
    _, manifest = documents(done.stdout)
    (group,) = manifest["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    (container,) = group["template"]["spec"]["containers"]
    assert group["resources"] == {"CPU": "1", "GPU": "1", "RDU": "2"}
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["envFrom"] == [{"secretRef": {"name": "stores"}}]
    if CRDS is not None:
        assert validator("RayJob").is_valid(manifest)
