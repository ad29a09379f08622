"""A row's own settings: what they change, and how what is wrong with them is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from rdu_batch.errors import RowError
from rdu_batch.job.overrides import OVERRIDABLE, generation_of
from rdu_batch.job.records import MAX_DETAIL_CHARS, Reason, Row, parse_row
from rdu_batch.job.spec import GenerationSpec

RowOf = Callable[..., Row]

JOB = GenerationSpec(max_new_tokens=8, top_k=5, stop=("\n",), overrides_field="own")


def settings_of(row_of: RowOf, own: object, job: GenerationSpec = JOB) -> GenerationSpec:
    """The settings of a row whose field holds this."""
    return generation_of(parse_row(row_of(json.dumps({"own": own}).encode())), job)


def refused(row_of: RowOf, own: object, job: GenerationSpec = JOB) -> str:
    """The detail of the dead letter of a row whose field holds this."""
    with pytest.raises(RowError) as caught:
        settings_of(row_of, own, job)
    assert caught.value.reason == Reason.BAD_OVERRIDE
    return caught.value.detail


@pytest.mark.parametrize("line", [b"{}", b'{"own": null}', b'{"own": {}}', b'{"Own": 3}'])
def test_a_row_that_says_nothing_has_the_settings_of_the_job(row_of: RowOf, line: bytes) -> None:
    """Absent, null and an empty object are the same."""
    assert generation_of(parse_row(row_of(line)), JOB) == JOB


def test_without_the_setting_no_field_is_looked_at(row_of: RowOf) -> None:
    """Whatever a row's fields are called."""
    job = GenerationSpec()
    assert settings_of(row_of, {"max_new_tokens": 3}, job) is job


@pytest.mark.parametrize(
    ("own", "changed"),
    [
        ({"max_new_tokens": 99}, {"max_new_tokens": 99}),
        ({"min_new_tokens": 8}, {"min_new_tokens": 8}),
        ({"temperature": 1}, {"temperature": 1.0}),
        ({"top_k": 2, "top_p": 0.5, "min_p": 1}, {"top_k": 2, "top_p": 0.5, "min_p": 1.0}),
        ({"repetition_penalty": 1.5}, {"repetition_penalty": 1.5}),
        ({"stop": ["a", "b"]}, {"stop": ("a", "b")}),
        ({"stop": []}, {"stop": ()}),
        ({"stop_token_ids": [0, 10**30]}, {"stop_token_ids": (0, 10**30)}),
        ({"seed": -(10**30)}, {"seed": -(10**30)}),
        ({"top_k": None}, {"top_k": None}),
    ],
)
def test_a_row_changes_what_it_names_and_nothing_else(
    row_of: RowOf, own: dict[str, Any], changed: dict[str, Any]
) -> None:
    """More tokens than the job's, too; a null turns off what may be off."""
    assert settings_of(row_of, own) == JOB.model_copy(update=changed)


def test_every_setting_but_three_may_be_a_rows_own(row_of: RowOf) -> None:
    """A new setting of the job file is one of a row, unless somebody decides otherwise."""
    all_keys = set(GenerationSpec.model_fields)
    assert all_keys - set(OVERRIDABLE) == {"num_samples", "logprobs", "overrides_field"}
    own = GenerationSpec(max_new_tokens=3).model_dump(include=set(OVERRIDABLE))
    assert settings_of(row_of, own) == JOB.model_copy(update=own)


@pytest.mark.parametrize(
    ("own", "detail"),
    [
        (
            "hot",
            'found "hot"; wanted an object of generation settings, such as {"max_new_tokens": 32}',
        ),
        ([1, 2], "found a list of 2; wanted an object of generation settings"),
        (False, "found false; wanted an object of generation settings"),
        ({"max_new_tokens": 0}, "max_new_tokens: found 0; wanted a number of at least 1"),
        ({"max_new_tokens": "9"}, 'max_new_tokens: found "9"; wanted a whole number'),
        ({"max_new_tokens": 2.5}, "max_new_tokens: found 2.5; wanted a whole number"),
        ({"max_new_tokens": None}, "max_new_tokens: found nothing; wanted a whole number"),
        ({"temperature": True}, "temperature: found true; wanted a number"),
        ({"temperature": {}}, "temperature: found a mapping; wanted a number"),
        ({"top_p": 0}, "top_p: found 0; wanted a number above 0"),
        ({"stop": "END"}, 'stop: found "END"; wanted a list, such as [a, b]'),
        ({"stop": ["a", ""]}, 'stop[1]: found ""; wanted text that is not empty'),
        ({"stop": ["a", "a"]}, 'stop: found "a" 2 times; wanted it once'),
        ({"stop_token_ids": [-1]}, "stop_token_ids[0]: found -1; wanted a number of at least 0"),
        (
            {"min_new_tokens": 9},
            "min_new_tokens: found 9; wanted at most generation.max_new_tokens, which is 8",
        ),
    ],
)
def test_a_wrong_value_is_told_as_in_a_job_file(row_of: RowOf, own: object, detail: str) -> None:
    """What was found and what was wanted, and in which field."""
    assert refused(row_of, own).startswith(f'the field "own": {detail}')


def test_an_unknown_key_is_told_with_the_nearest_one(row_of: RowOf) -> None:
    """What only the job may say is not among them."""
    assert refused(row_of, {"temprature": 1}) == (
        'the field "own": found the key "temprature"; wanted one of max_new_tokens, '
        "min_new_tokens, temperature, top_k, top_p, min_p, repetition_penalty, stop, "
        "stop_token_ids, seed; did you mean temperature?"
    )
    for key in ("num_samples", "logprobs", "overrides_field"):
        assert refused(row_of, {key: 1}).startswith(f'the field "own": found the key "{key}"; ')


def test_every_mistake_of_a_row_is_told_at_once(row_of: RowOf) -> None:
    """As far as a dead letter has room."""
    assert refused(row_of, {"top_k": 0, "max_new_tokens": 0}) == (
        'the field "own": max_new_tokens: found 0; wanted a number of at least 1. '
        "top_k: found 0; wanted a number of at least 1"
    )


def test_a_row_may_not_make_the_samples_of_the_job_all_alike(row_of: RowOf) -> None:
    """Greedy, while the job asks for three."""
    job = GenerationSpec(temperature=1, num_samples=3, overrides_field="own")
    assert settings_of(row_of, {"temperature": 0.1}, job).num_samples == 3
    assert "num_samples: found 3 with generation.temperature 0" in refused(
        row_of, {"temperature": 0}, job
    )


@pytest.mark.parametrize(
    ("number", "found"),
    [
        ("1e999", "found inf"),
        ("9" * 5000, f"found {'9' * 77}..."),
        ("9" * 400, f"found {'9' * 77}..."),
        ("1e308", None),
    ],
)
def test_a_number_too_large_for_a_float_ends_the_row_and_nothing_else(
    row_of: RowOf, number: str, found: str | None
) -> None:
    """However it is written."""
    fields = parse_row(row_of(f'{{"own": {{"temperature": {number}}}}}'.encode()))
    if found is None:
        assert generation_of(fields, JOB).temperature == float(number)
        return
    with pytest.raises(RowError) as caught:
        generation_of(fields, JOB)
    assert f"temperature: {found}; wanted" in caught.value.detail
    assert len(caught.value.detail) <= MAX_DETAIL_CHARS
