"""Where tasks of counting are done on this machine."""

import pytest

from rdu_batch.dataset.local_counting import num_processes_of


@pytest.mark.parametrize(("processors", "processes"), [(1, 4), (2, 8), (16, 32), (96, 96)])
def test_processes_that_wait_for_a_disk_are_more_than_processors_but_few(processors, processes):
    """Each costs some 60 MB: a large machine has one a processor."""
    assert num_processes_of(processors) == processes
