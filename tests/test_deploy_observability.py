"""The alert rules, played through by promtool: each goes off when it should, and not before."""

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.runner.prometheus import program

pytestmark = pytest.mark.servers

RULES = Path(__file__).parents[1] / "deploy" / "observability" / "alerts.yml"
#: Two drivers of one job on one cluster: the first ended, the second runs.
ENDED, LIVES = '{job_name="nightly",WorkerId="a"}', '{job_name="nightly",WorkerId="b"}'
#: Minutes until the second driver's first number.
BEGUN = 60


def series(rows_done, workers, dead, ended_dead="0"):
    """One value a minute: a night that ended before, whose counters stay, and the one that runs."""
    values = [
        (f"ray_rdu_batch_rows{ENDED}", "100x40 stale"),
        (f"ray_rdu_batch_rows_done{ENDED}", "60+1x40 stale"),
        (f"ray_rdu_batch_workers{ENDED}", "2x40 stale"),
        (f"ray_rdu_batch_run_dead_rows{ENDED}", f"{ended_dead}x40 stale"),
        (f"ray_rdu_batch_dead_rows_total{ENDED}", f"{ended_dead}x240"),
        (f"ray_rdu_batch_rows{LIVES}", f"_x{BEGUN} 100x120"),
        (f"ray_rdu_batch_rows_done{LIVES}", f"_x{BEGUN} {rows_done}"),
        (f"ray_rdu_batch_workers{LIVES}", f"_x{BEGUN} {workers}"),
        (f"ray_rdu_batch_run_dead_rows{LIVES}", f"_x{BEGUN} {dead}"),
        (f"ray_rdu_batch_dead_rows_total{LIVES}", f"_x{BEGUN} {dead}"),
    ]
    return [{"series": name, "values": text} for name, text in values]


def alerts_at(folder, played, minutes, wanted):
    """Have promtool check that exactly these have gone off so long after the second beginning."""
    names = [rule["alert"] for rule in yaml.safe_load(RULES.read_text())["groups"][0]["rules"]]
    expected = [
        {
            "alertname": name,
            "eval_time": f"{BEGUN + minutes}m",
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
        (series("0+1x100", "2x120", "6x120"), {"RduBatchManyDeadLetters"}),
        (series("100x120", "0x120", "0x120"), set()),
    ],
    ids=["runs", "stands still", "no worker", "many dead letters", "done"],
)
def test_an_alert_goes_off_for_its_own_trouble_alone(tmp_path, played, wanted):
    """After an hour of it."""
    alerts_at(tmp_path, played, 60, wanted)


def test_dead_letters_of_earlier_nights_are_not_this_night_s(tmp_path):
    """Ray exports the counters of drivers that ended for as long as its node lives."""
    alerts_at(tmp_path, series("0+1x100", "2x120", "2x120", ended_dead="90"), 60, set())


@pytest.mark.parametrize("minutes", [1, 6, 15, 29])
def test_a_slow_start_is_no_standstill(tmp_path, minutes):
    """A job that has not finished a row for less than half an hour."""
    alerts_at(tmp_path, series("0x120", "2x120", "0x120"), minutes, set())


@pytest.mark.parametrize(("minutes", "wanted"), [(31, {"RduBatchStandsStill"}), (55, set())])
def test_a_standstill_is_told_until_a_row_is_finished(tmp_path, minutes, wanted):
    """Of a job that finished its first rows after 50 minutes."""
    alerts_at(tmp_path, series("0x49 1+1x60", "2x120", "0x120"), minutes, wanted)
