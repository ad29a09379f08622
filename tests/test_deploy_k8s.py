"""The manifests that ``rdu-batch render k8s`` writes, against what Kubernetes takes."""

import copy
import json
import re
import shlex
import subprocess
import sys

import kubernetes_validate
import pytest

from rdu_batch.job.loading import load_spec
from rdu_batch.report.kubernetes_names import MAX_NAME, name_of
from rdu_batch.report.kubernetes_text import to_yaml
from tests.k8s_manifests import (
    CRDS,
    DATED,
    FOLDER,
    RENDERED,
    documents,
    job_with,
    ray_job_specs,
    render,
    validator,
)

#: Of the kinds that Kubernetes itself knows.
KUBERNETES = "1.34"
needs_crds = pytest.mark.skipif(
    CRDS is None, reason="KUBERAY_CRDS names no folder with KubeRay's CRDs"
)
DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


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


@pytest.mark.parametrize("kind", sorted(MAX_NAME))
def test_a_name_is_as_short_as_it_must_be_and_two_jobs_stay_two(kind):
    """A digest keeps apart what a cut would make one."""
    long, other = "9" + "a" * 62, "9" + "a" * 61 + "b"
    for name in (long, other, "a-", "7"):
        assert DNS_1035.fullmatch(name_of(name, kind))
        assert len(name_of(name, kind)) <= MAX_NAME[kind]
    assert name_of(long, kind) != name_of(other, kind)
    assert name_of("nightly", kind) == "nightly"
    names = ["a", "a-", "a--", "7", "7-", "job-7", "job-7-", long, other]
    assert len({name_of(name, kind) for name in names}) == len(names)


@pytest.mark.parametrize("name", ["a-", "7", "9" + "a" * 62, "reviews-nightly"])
def test_one_job_has_one_label_in_all_kinds(tmp_path, name):
    """So that a selector finds all that is of a job; names have limits of their own."""
    job = job_with(tmp_path, "name: reviews-nightly", f"name: '{name}'")
    kinds = [word for kind in ("rayjob", "cronjob", "raycronjob") for word in ("--kind", kind)]
    done = render(job, *DATED, *kinds)
    found = documents(done.stdout)
    assert len(found) == 4
    (label,) = {one["metadata"]["labels"]["rdu-batch/job"] for one in found}
    assert re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", label)
    (config,) = (one for one in found if one["kind"] == "ConfigMap")
    for manifest in found[1:]:
        assert json.dumps(config["metadata"]["name"]) in json.dumps(manifest), "it is mounted"


def worker_group(tmp_path, workers, *arguments):
    """The workers' group of a RayJob whose job file has these workers."""
    job = job_with(tmp_path, "{count: 8, cpus: 2}", workers)
    done = render(job, *DATED, *arguments)
    assert done.returncode == 0, done.stderr
    _, manifest = documents(done.stdout)
    if CRDS is not None:
        assert validator("RayJob").is_valid(manifest)
    (group,) = manifest["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    return group, done.stdout


@pytest.mark.parametrize(
    ("workers", "arguments", "pods", "memory"),
    [
        ("{count: 8, cpus: 2}", [], 8, "8Gi"),
        # Two share a GPU, though four would share a CPU.
        ("{count: 4, cpus: 0.25, gpus: 0.5}", [], 2, "16Gi"),
        ("{count: 5, cpus: 0.25, gpus: 0.5}", [], 3, "16Gi"),
        ("{count: 4, cpus: 0.25}", [], 1, "32Gi"),
        ("{count: 20, cpus: 0.1}", ["--worker-memory", "1.5Gi"], 2, "15Gi"),
        ("{count: 3, cpus: 0.5}", ["--worker-memory", "1.25Gi"], 2, "2.5Gi"),
        ("{count: 1, cpus: 0.25}", [], 1, "8Gi"),
        ("{count: 4, cpus: 1.5}", [], 4, "8Gi"),
        ("{count: 4, cpus: 0, gpus: 1}", [], 4, "8Gi"),
        ("{count: 4, cpus: 0.5, resources: {RDU: 1}}", [], 4, "8Gi"),
        ("{count: 4, cpus: 0.5, resources: {RDU: 0.5}}", [], 2, "16Gi"),
        ("{max: 4, cpus: 0.5}", [], 2, "16Gi"),
        ("{count: 4, cpus: 0.5}", ["--workers", "7"], 7, "16Gi"),
        ("{cpus: 0.5}", ["--workers", "7"], 7, "16Gi"),
    ],
)
def test_as_many_pods_as_ray_fills(tmp_path, workers, arguments, pods, memory):
    """Ray packs workers that reserve a part into one pod; a pod more would stand idle."""
    group, _ = worker_group(tmp_path, workers, *arguments)
    assert group["replicas"] == group["minReplicas"] == group["maxReplicas"] == pods
    (container,) = group["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["memory"] == memory


@pytest.mark.parametrize("amount", ["1000000", "12345678", "3", "0.5"])
def test_amounts_are_exact_texts(tmp_path, amount):
    """Whole, as nodes of Ray have them; quoted, for YAML 1.2 reads 1e+06 as a number."""
    group, text = worker_group(tmp_path, f"{{count: 1, resources: {{RDU: {amount}}}}}")
    whole = "1" if amount == "0.5" else amount
    assert group["resources"]["RDU"] == whole
    assert f"RDU: '{whole}'\n" in text


@pytest.mark.parametrize(
    "value",
    ["1e3", "1e+06", "089", "1_000", "0o17", "0x1F", "1.5", "y", "N", "true", "null", "1E5"],
)
def test_what_a_reader_might_take_for_a_value_is_quoted(value, tmp_path):
    """YAML 1.1, 1.2 and Go's reader disagree on what is a number or true."""
    if re.fullmatch("[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?", value):
        group, text = worker_group(tmp_path, "{count: 1}", "--spot", f"pool={value}")
        assert group["template"]["spec"]["nodeSelector"] == {"pool": value}
        assert f"pool: '{value}'\n" in text
    assert to_yaml([{"a": value}]) == f"a: '{value}'\n"


def test_the_object_store_fits_its_shared_memory():
    """Ray's own choice, 30 % of the pod's memory, would go to a disk instead, with a warning."""
    for path in FOLDER.glob("ray*job*.yaml"):
        (_, manifest) = documents(path.read_text())
        cluster = ray_job_specs(manifest)["rayClusterSpec"]
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            bytes_wanted = int(group["rayStartParams"]["object-store-memory"])
            (shared,) = (
                volume["emptyDir"]["sizeLimit"]
                for volume in group["template"]["spec"]["volumes"]
                if volume["name"] == "shared-memory"
            )
            assert 100 << 20 <= bytes_wanted <= (int(shared.removesuffix("Mi")) << 20) * 0.9


def test_gpus_and_other_resources_are_asked_of_kubernetes_and_told_to_ray(tmp_path):
    """Ray finds a GPU by itself, but not beside resources that it is told of."""
    job = job_with(tmp_path, "cpus: 2", "cpus: 0.5, gpus: 1, resources: {RDU: 2}")
    done = render(job, *DATED, "--secret", "stores")
    _, manifest = documents(done.stdout)
    (group,) = manifest["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    (container,) = group["template"]["spec"]["containers"]
    assert group["resources"] == {"CPU": "1", "GPU": "1", "RDU": "2"}
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["envFrom"] == [{"secretRef": {"name": "stores"}}]
    if CRDS is not None:
        assert validator("RayJob").is_valid(manifest)
