"""What all tests share: which of them must run in one process when they run side by side."""

from pathlib import Path

import pytest
from hypothesis import settings

# How long one example takes says something of the machine's other work, nothing of the program.
settings.register_profile("rdu_batch", deadline=None)
settings.load_profile("rdu_batch")

HERE = Path(__file__).parent
#: Tests of these folders and files share what takes long to make: compiled models, finished jobs.
#: The first that holds a test counts.
ONE_PROCESS = (
    HERE / "sessions" / "samba",
    HERE / "sessions" / "rdu_engine",
    HERE / "sessions",
    HERE / "runner" / "test_audit.py",
    HERE / "runner" / "test_retry_dead.py",
)


# First of all hooks: the plug-in that distributes tests reads the marks.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep tests that share something in one process."""
    for item in items:
        if item.get_closest_marker("servers") is not None:
            # Each server is started once, not once in every process.
            item.add_marker(pytest.mark.xdist_group("servers"))
            continue
        places = (place for place in ONE_PROCESS if item.path.is_relative_to(place))
        if (place := next(places, None)) is not None:
            item.add_marker(pytest.mark.xdist_group(place.name))
