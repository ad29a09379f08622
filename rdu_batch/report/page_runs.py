"""The report page's table of runs: how each ended, when, and how far from what was planned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rdu_batch.report.page_markup import section, soft, span_of_time, table, text


def runs(epochs: Sequence[dict[str, Any]]) -> str:
    """A row a run, oldest first, from what it reported; the section is left out without any."""
    rows = [[_how(one), _took(one), _planned(one), _rate(one), _workers(one)] for one in epochs]
    heads = ["Run", "Took, s", "Planned, s", "Tokens/s", "Workers"]
    told = table(heads, rows, [_when_and_why(one) for one in epochs])
    return section("Runs: plan against actual", told) if rows else ""


def _how(epoch: dict[str, Any]) -> str:
    told = f"{epoch.get('epoch', '')} {text(epoch.get('error') or epoch.get('state') or '')}"
    if "exit" in epoch:
        told += f", exit {text(epoch['exit'])}"
    return told


def _when_and_why(epoch: dict[str, Any]) -> str:
    told = ""
    if "began_s" in epoch and "ended_s" in epoch:
        told += soft(span_of_time(epoch["began_s"], epoch["ended_s"]))
    if epoch.get("message"):
        told += soft(text(str(epoch["message"]).splitlines()[0]))
    return told


def _took(epoch: dict[str, Any]) -> str:
    if "wall_s" in epoch:
        return f"{epoch['wall_s']:,.1f}"
    # A run that failed did not always say how long it took; its workers' lives are a part of it.
    lives = [one["seconds"]["total_s"] for one in epoch.get("by_worker") or ()]
    return f"&gt; {max(lives):,.1f}" if lives else ""


def _planned(epoch: dict[str, Any]) -> str:
    predicted = epoch.get("predicted_wall_s")
    return f"{predicted[0]:,.1f}-{predicted[1]:,.1f}" if predicted else ""


def _rate(epoch: dict[str, Any]) -> str:
    rate = epoch.get("tokens_per_s")
    if rate is None:
        # The same of an earlier version's failed run, from when its workers began.
        throughput = epoch.get("throughput") or {}
        counts = throughput.get("generated_tokens") or ()
        end_s = throughput.get("end_s") or len(counts) * throughput.get("bin_s", 0.0)
        rate = sum(counts) / end_s if end_s else None
    return f"{rate:,.1f}" if rate is not None else ""


def _workers(epoch: dict[str, Any]) -> str:
    workers = epoch.get("workers")
    if workers is None and epoch.get("by_worker"):
        workers = len(epoch["by_worker"])
    return f"{workers:,}" if workers is not None else ""
