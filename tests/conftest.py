"""What all tests share: which of them must run in one process when they run side by side."""

from pathlib import Path

import pytest
from hypothesis import settings

# How long one example takes says something of the machine's other work, nothing of the program.
settings.register_profile("rdu_batch", deadline=None)
settings.load_profile("rdu_batch")

#: Tests of these folders share models that take a minute to compile.
ONE_PROCESS = (Path(__file__).parent / "sessions",)


# First of all hooks: the plug-in that distributes tests reads the marks.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep tests that share a compiled model in one process."""
    for item in items:
        for folder in ONE_PROCESS:
            if folder in item.path.parents:
                item.add_marker(pytest.mark.xdist_group(folder.name))
