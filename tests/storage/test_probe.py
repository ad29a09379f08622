"""The probe tells stores that create once from servers that only say so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rdu_batch.errors import CreateOnceUnsupported, StoreError
from rdu_batch.storage.probe import check_create_once
from rdu_batch.storage.store import Store, open_store

if TYPE_CHECKING:
    from tests.storage.conftest import ScriptedS3


def test_every_store_of_ours_passes_the_probe_and_is_left_clean(store: Store) -> None:
    """Nothing stays in the folder."""
    check_create_once(store, "_run/probe")
    assert store.list_names("", recursive=True) == []


@pytest.mark.s3
def test_a_server_that_ignores_the_condition_is_found_out(scripted_s3: ScriptedS3) -> None:
    """It answers 200 to both creations; each carried the condition."""
    with pytest.raises(CreateOnceUnsupported, match="ignores If-None-Match"):
        check_create_once(open_store("s3://bucket/out"), "_run/probe")
    assert scripted_s3.conditions == ["*", "*"]


@pytest.mark.s3
def test_a_server_that_fails_is_not_called_unable(scripted_s3: ScriptedS3) -> None:
    """Denied access is a StoreError of its own kind."""
    scripted_s3.script = [(403, "AccessDenied")] * 10
    with pytest.raises(StoreError, match="access denied") as caught:
        check_create_once(open_store("s3://bucket/out"), "_run/probe")
    assert not isinstance(caught.value, CreateOnceUnsupported)
