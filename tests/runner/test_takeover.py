"""Waiting until an output is free, on a clock of the test's own."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from rdu_batch.errors import OutputOwned
from rdu_batch.runner.epochs import take_epoch, write_result
from rdu_batch.runner.heartbeat import HEARTBEAT_S, takeover_s
from rdu_batch.runner.process_mark import ProcessMark
from rdu_batch.runner.run_layout import driver_epoch, driver_heartbeat
from rdu_batch.runner.takeover import wait_until_free
from rdu_batch.storage.store import open_store

INTERVAL_S = 4.0


class World:
    """A store in which something happens while the one who waits sleeps."""

    def __init__(self, folder):
        self.store = open_store(str(folder))
        self.now_s = 100.0
        self.said = []
        self.script = {}
        self.num_sleeps = 0

    def own(self, epoch, process=None, interval_s=INTERVAL_S):
        """Some driver takes an epoch; by default one of another machine."""
        owner = replace(take_epoch(self.store, epoch, interval_s), process=process)
        self.store.put_whole(driver_epoch(epoch), owner.to_bytes())

    def beat(self, epoch, count):
        content = json.dumps({"version": 1, "epoch": epoch, "count": count}).encode()
        self.store.put_whole(driver_heartbeat(epoch), content)

    def sleep(self, seconds):
        self.num_sleeps += 1
        self.now_s += seconds
        self.script.get(self.num_sleeps, lambda: None)()

    def wait(self):
        return wait_until_free(
            self.store, self.said.append, now_s=lambda: self.now_s, sleep=self.sleep
        )


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "out")


def test_a_new_output_is_free(world):
    """Nothing is said or waited for."""
    assert world.wait() == 0
    assert (world.said, world.num_sleeps) == ([], 0)


def test_an_epoch_that_reported_its_end_is_not_waited_for(world):
    """Even if an earlier one never did."""
    world.own(1)
    world.own(2)
    write_result(world.store, 2, {"exit": 12})
    assert world.wait() == 2
    assert (world.said, world.num_sleeps) == ([], 0)


def test_a_heartbeat_that_moves_ends_the_wait_and_names_the_owner(world):
    """Epoch, host, pid, what was seen, and what to do."""
    world.own(3)
    world.beat(3, 41)
    world.script = {5: lambda: world.beat(3, 42)}
    with pytest.raises(OutputOwned) as raised:
        world.wait()
    message = str(raised.value)
    owner = json.loads(world.store.read(driver_epoch(3)))
    for words in ("epoch 3", owner["host"], f"pid {owner['pid']}", "from 41 to 42 within 5.0 s"):
        assert words in message
    assert "stop it there" in message
    assert "another output.url" in message
    assert raised.value.exit_code == 14
    assert len(world.said) == 1
    assert "watching" in world.said[0]


def test_a_driver_that_has_just_taken_its_epoch_is_given_time_to_beat(world):
    """No heartbeat yet, then the first."""
    world.own(1)
    world.script = {2: lambda: world.beat(1, 1)}
    with pytest.raises(OutputOwned, match="epoch 1"):
        world.wait()


@pytest.mark.parametrize("count", [None, 17])
def test_a_heartbeat_that_stands_still_is_taken_over_after_its_own_interval_says_so(world, count):
    """The owner's interval counts, not the observer's."""
    world.own(1)
    if count is not None:
        world.beat(1, count)
    assert world.wait() == 1
    assert takeover_s(INTERVAL_S) <= world.now_s - 100.0 <= takeover_s(INTERVAL_S) + 1.0
    assert "taking over" in world.said[-1]


def test_an_epoch_object_that_says_no_interval_gets_the_usual_one(world):
    """One of an earlier version of this program."""
    world.store.put_whole(driver_epoch(1), b'{"version": 1, "host": "a", "pid": 7, "epoch": 1}')
    assert world.wait() == 1
    assert world.now_s - 100.0 >= takeover_s(HEARTBEAT_S)


def test_a_result_that_comes_while_watching_frees_the_output_at_once(world):
    """The other driver was just about to end."""
    world.own(1)
    world.script = {2: lambda: write_result(world.store, 1, {"exit": 12})}
    assert world.wait() == 1
    assert world.num_sleeps == 2


def test_a_later_epoch_that_comes_while_watching_is_watched_instead(world):
    """Two were waiting for the same dead driver; the other one was first and lives."""
    world.own(1)
    world.beat(1, 5)
    world.script = {3: lambda: world.own(2), 6: lambda: world.beat(2, 1)}
    with pytest.raises(OutputOwned, match="epoch 2"):
        world.wait()


@pytest.fixture(scope="module")
def gone():
    """The mark of a process of this machine that has ended."""
    code = (
        "import json; from rdu_batch.runner.process_mark import mark_of_this_process as mark; "
        "print(json.dumps(mark().to_json()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return ProcessMark.from_json(json.loads(done.stdout))


def test_a_driver_of_this_machine_whose_process_is_gone_is_not_waited_for(world, gone):
    """Killed and rerun is quick."""
    world.own(1, process=gone)
    world.beat(1, 5)
    assert world.wait() == 1
    assert world.num_sleeps == 0
    assert "was killed" in world.said[0]


def test_a_driver_of_another_boot_is_watched(world, gone):
    """Its process number means nothing here."""
    world.own(1, process=replace(gone, boot_id="another"))
    assert world.wait() == 1
    assert world.now_s - 100.0 >= takeover_s(INTERVAL_S)
