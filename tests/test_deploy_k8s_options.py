"""What ``rdu-batch render k8s`` refuses, and how it says so."""

import subprocess
import sys

import pytest

from tests.k8s_manifests import DATED, FOLDER, IMAGE, job_with, render


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (("s3://corpus/reviews/", "reviews/"), [], "names paths of this machine: reviews/"),
        (("count: 8, ", ""), [], "--workers N"),
        (("", ""), ["--kind", "rayjob", "--kind", "cronjob", "--queue", "a"], "rayjob alone"),
        (("", ""), ["--kind", "cronjob"], "--date is for a rayjob"),
        (("", ""), ["--kind", "raycronjob"], "--date is for a rayjob"),
        (
            ("reviews/{date}/\nw", "reviews/\nw"),
            ["--kind", "rayjob", "--kind", "cronjob"],
            "{date}",
        ),
        (("cpus: 2", "cpus: 0"), [], "reserve nothing"),
    ],
)
def test_what_cannot_be_rendered_is_said(tmp_path, change, arguments, message):
    """With what to do about it."""
    done = render(job_with(tmp_path, *change), *DATED, *arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "apiVersion" not in done.stdout


@pytest.mark.parametrize("kind", ["cronjob", "raycronjob"])
@pytest.mark.parametrize(
    ("url", "is_right"), [("out/{date}/", True), ("out/{yesterday}/", True), ("out/", False)]
)
def test_every_night_has_an_output_of_its_own(tmp_path, kind, url, is_right):
    """In one folder the second night would find the first one's."""
    done = render(job_with(tmp_path, "predictions/reviews/{date}/", url), *IMAGE, "--kind", kind)
    assert done.returncode == (0 if is_right else 2), done.stderr
    assert is_right or "is s3://corpus/out/ every night" in done.stderr


def test_a_cronjob_asks_for_no_worker_pods(tmp_path):
    """It submits to a cluster that is there, so nobody has to say how many."""
    job = job_with(tmp_path, "count: 8, ", "")
    assert render(job, *IMAGE, "--kind", "cronjob").returncode == 0
    assert render(job, *IMAGE, "--kind", "raycronjob").returncode == 2


WRONG_OPTIONS = [
    *(("--worker-memory", one) for one in ("8GB", "8 Gi", "-8Gi", "8", "8m", "Gi", "", "1e10")),
    *(("--schedule", one) for one in ("TZ=UTC 61 * *", "TZ=UTC 1 * * * *", "")),
    ("--schedule", "@daily"),
    *(("--schedule", one) for one in ("61 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *")),
    *(("--schedule", f"{one} 3 * * *") for one in ("5-1", "*/0", "1-2-3", "a", "-1", "1,", "*-5")),
    *(("--schedule", f"1 3 * * {one}") for one in ("7", "someday", "jan")),
    *(("--time-zone", one) for one in ("Mars/x", "../etc/passwd", "$(id)", "Europe", "", "Local")),
    *(
        ("--spot", one)
        for one in ("market", "a b/c=d", "=b", "a=", "a=b c", "/a=b", "a=b=c", "a/=b")
    ),
    *(("--cluster", one) for one in ("a; id #", "Ray", "1a", "a-", "a.b", "", "a" * 54)),
    *((option, "A b") for option in ("--secret", "--service-account", "--queue", "--image")),
    ("--ray-version", "newest"),
]


@pytest.mark.parametrize(("option", "value"), WRONG_OPTIONS)
def test_what_kubernetes_would_refuse_is_a_wrong_use(option, value):
    """Before anything is rendered: it says which option, what was found and what is wanted."""
    done = render("nightly.yaml", *IMAGE, "--kind", "cronjob", option, value)
    assert done.returncode == 2, done.stdout
    assert f"'{option}': found" in done.stderr
    assert "wanted" in done.stderr
    assert "apiVersion" not in done.stdout


def test_a_wrong_option_is_told_by_the_program():
    """As any wrong use is: exit 2 and no traceback."""
    words = ["render", "k8s", "nightly.yaml", *IMAGE, "--kind", "cronjob", "--cluster", "a; id #"]
    done = subprocess.run(
        [sys.executable, "-m", "rdu_batch", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=FOLDER,
    )
    assert done.returncode == 2
    assert "wanted the name of a RayCluster" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("--worker-memory", one) for one in ("8Gi", "1.5Gi", "8000M", "2000000000", "2000000k")),
        *(
            ("--schedule", one)
            for one in ("*/5 0-4,22 1 JAN-mar ?", "0 3 * * sun", "5/10 * * * 1-5")
        ),
        *(("--time-zone", one) for one in ("America/Argentina/Buenos_Aires", "Etc/GMT+5", "UTC")),
        ("--spot", "node.kubernetes.io/a_b=1.x"),
        ("--cluster", "ray-1"),
        ("--image", "registry.example.com:5000/a/b_c:1.2@sha256:0123"),
        ("--service-account", "rdu.batch-1"),
        ("--ray-version", "2.61.0rc1"),
    ],
)
def test_what_kubernetes_takes_is_taken(option, value):
    """No check is stricter than what it stands for."""
    image = [] if option == "--image" else [*IMAGE]
    kinds = ("--kind", "cronjob", "--kind", "raycronjob")
    done = render("nightly.yaml", *image, *kinds, option, value)
    assert done.returncode == 0, done.stderr
