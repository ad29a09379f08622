"""Predictions to look at: what a person reads of a part's lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rdu_batch.job.records import Fields
from rdu_batch.report.samples import sample_line, sample_predictions
from rdu_batch.storage.store import open_store


def test_a_sample_cannot_move_the_cursor() -> None:
    """Predictions are untrusted: control characters are shown escaped."""
    record = {"row": [0, 1], "id": None, "prediction": "red\x1b[31m\nline", "label": "x"}
    wanted = "[0, 1]  label=x  ->  red\\u001b[31m\\nline"
    assert sample_line(Fields(record, None, json.dumps(record))) == wanted


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("null", "null"),
        ("true", "true"),
        ("123456789012345678901234567890.5", "123456789012345678901234567890.5"),
        ("1e0", "1e0"),
        ("7" * 5000, "7" * 5000),
        ('{"a": [null, "x"]}', '{"a": [null, "x"]}'),
        ('"negative"', "negative"),
        ('"5"', '"5"'),
        ('"null"', '"null"'),
        ('""', ""),
    ],
)
def test_carried_values_and_ids_are_their_json_text(tmp_path: Path, text: str, shown: str) -> None:
    """Not what Python makes of them; a plain text stands without its quotes."""
    line = (
        f'{{"row":[0,1],"id":{text},"prediction":"p","finish_reason":"eos","num_prompt_tokens":1'
        f',"num_generated_tokens":1,"label":{text}}}\n'
    )
    (tmp_path / "part-00000-of-00001.jsonl").write_text("damaged\n" + line)
    found = sample_predictions(
        open_store(str(tmp_path)),
        9,
        lambda store, name, _size: iter(store.read(name).splitlines(keepends=True)),
    )
    name = "[0, 1]" if text == "null" else shown
    assert found == [f"{name}  label={shown}  ->  p"]
