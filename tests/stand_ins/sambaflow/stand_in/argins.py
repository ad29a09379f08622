"""Argins: the scalars that a run gives a graph [WHL]."""

from __future__ import annotations

from collections.abc import Mapping

from sambaflow.stand_in.contracts import Contract, ContractError


def checked_p(hyperparam_dict: Mapping[str, float] | None, argins: Mapping[str, float]) -> float:
    """The probability of dropout of a run; where none is given, the one that was traced.

    Raises:
        ContractError: A value is no number, or the graph has no such argin.
    """
    for key, value in (hyperparam_dict or {}).items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ContractError(
                Contract.HYPERPARAMETERS,
                f"Argin {key} is a {type(value).__name__}",
                "Argin must be int or float!",
            )
        if key not in argins:
            raise ContractError(
                Contract.HYPERPARAMETERS, f"unknown argin {key!r}", f"one of {sorted(argins)}"
            )
    return float({**argins, **(hyperparam_dict or {})}.get("p", 0.0))
