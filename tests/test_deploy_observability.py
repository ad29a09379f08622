"""The alert rules, played through by promtool: each goes off when it should, and not before."""

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.runner.prometheus import program

pytestmark = pytest.mark.servers

RULES = Path(__file__).parents[1] / "deploy" / "observability" / "alerts.yml"
JOB = '{job_name="nightly"}'
#: Of one driver that ended and one that took over, as both still have a counter.
TWO_DRIVERS = ['{job_name="nightly",WorkerId="a"}', '{job_name="nightly",WorkerId="b"}']


def series(rows_done, workers, dead):
    """One value a minute."""
    values = [
        (f"ray_rdu_batch_rows{JOB}", "100x120"),
        (f"ray_rdu_batch_rows_done{JOB}", rows_done),
        (f"ray_rdu_batch_workers{JOB}", workers),
        *((f"ray_rdu_batch_dead_rows_total{driver}", dead) for driver in TWO_DRIVERS),
    ]
    return [{"series": name, "values": text} for name, text in values]


def alerts_at(folder, played, minutes, wanted):
    """Have promtool check that exactly these of the rules have gone off."""
    names = [rule["alert"] for rule in yaml.safe_load(RULES.read_text())["groups"][0]["rules"]]
    expected = [
        {
            "alertname": name,
            "eval_time": f"{minutes}m",
            "exp_alerts": [{"exp_labels": {"job_name": "nightly", "severity": "warning"}}]
            if name in wanted
            else [],
        }
        for name in names
    ]
    for rule in expected:
        for alert in rule["exp_alerts"]:
            alert["exp_annotations"] = annotations_of(rule["alertname"])
    told = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": played, "alert_rule_test": expected}],
    }
    path = folder / "played.yml"
    path.write_text(yaml.safe_dump(told))
    done = subprocess.run(
        [program("promtool"), "test", "rules", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def annotations_of(name):
    rules = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
    (rule,) = [rule for rule in rules if rule["alert"] == name]
    return {
        key: text.replace("{{ $labels.job_name }}", "nightly")
        for key, text in rule["annotations"].items()
    }


@pytest.mark.parametrize(
    ("played", "wanted"),
    [
        (series("0+1x100", "2x120", "0x120"), set()),
        (series("7x120", "2x120", "0x120"), {"RduBatchStandsStill"}),
        (series("0+1x90", "0x120", "0x120"), {"RduBatchHasNoWorker"}),
        (series("0+1x100", "2x120", "3x120"), {"RduBatchManyDeadLetters"}),
        (series("100x120", "0x120", "0x120"), set()),
    ],
    ids=["runs", "stands still", "no worker", "many dead letters", "done"],
)
def test_an_alert_goes_off_for_its_own_trouble_alone(tmp_path, played, wanted):
    """After an hour of it."""
    alerts_at(tmp_path, played, 60, wanted)
