"""Kill schedules as values: what a trial runs, and which of its processes are struck when; pure.

A schedule is drawn from its number alone, so a failing one is repeated by its number. Workers,
sampling and store go round through all combinations; everything else is random.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, replace
from typing import Literal

Victim = Literal["driver", "actor", "session"]
Blow = Literal["KILL", "STOP"]
#: When a stopped driver goes on: while another one still watches whether it lives; when the other
#: has taken its epoch; when the other has finished the job.
Waking = Literal["watched", "overtaken", "finished"]
Kind = Literal["fake", "eager"]

NUM_SCHEDULES = 50
WORKERS = (1, 2, 4)
COMBINATIONS = tuple(itertools.product(WORKERS, (False, True), ("local", "s3")))
BLOWS: tuple[tuple[Victim, Blow], ...] = tuple(
    itertools.product(("driver", "actor", "session"), ("KILL", "STOP"))
)
WAKINGS: tuple[Waking, ...] = ("watched", "overtaken", "finished")
MOST_STRIKES = 3
#: The latest moment: a share of the job's rows that leaves enough of it to strike.
LATEST_SHARE = 0.55
#: Every so many schedules one has a real model; prime to the number of combinations.
REAL_EVERY = 7


@dataclass(frozen=True)
class Strike:
    """One blow: SIGKILL, or SIGSTOP with a later SIGCONT."""

    #: Falls when this share of the job's rows is durable,
    share: float
    #: and so many seconds after that, in the middle of whatever goes on then.
    delay_s: float
    victim: Victim
    blow: Blow
    #: How long a stopped actor or session stands still.
    pause_s: float = 0.0
    #: When a stopped driver goes on.
    waking: Waking = "watched"
    #: Which of several victims: a number to be taken modulo how many there are.
    choice: int = 0


@dataclass(frozen=True)
class Schedule:
    """One trial."""

    number: int
    workers: int
    is_sampled: bool
    store: str
    session: Kind
    strikes: tuple[Strike, ...]

    @property
    def name(self) -> str:
        """For the test's id: number, combination, session, blows."""
        blows = "-".join(f"{strike.blow}_{strike.victim}" for strike in self.strikes)
        way = "sampled" if self.is_sampled else "greedy"
        return f"{self.number:02d}-{self.workers}w-{way}-{self.store}-{self.session}-{blows}"

    def earlier(self, times: int) -> Schedule:
        """The same with earlier moments, for a job that ended before a strike fell."""
        factor = 0.5**times
        moved = [
            replace(strike, share=strike.share * factor, delay_s=strike.delay_s * factor)
            for strike in self.strikes
        ]
        return replace(self, strikes=tuple(moved))


def draw_schedule(number: int) -> Schedule:
    """The schedule of a number."""
    draw = random.Random(f"trial {number}")
    workers, is_sampled, store = COMBINATIONS[number % len(COMBINATIONS)]
    is_real = number % REAL_EVERY == REAL_EVERY - 2
    strikes = [_draw_strike(draw) for _ in range(draw.randint(1, MOST_STRIKES))]
    return Schedule(
        number=number,
        workers=workers,
        is_sampled=is_sampled,
        store=store,
        session="eager" if is_real else "fake",
        strikes=tuple(sorted(strikes, key=lambda strike: strike.share)),
    )


def _draw_strike(draw: random.Random) -> Strike:
    victim, blow = draw.choice(BLOWS)
    strike = Strike(
        share=draw.uniform(0.01, LATEST_SHARE),
        delay_s=draw.uniform(0.0, 0.3),
        victim=victim,
        blow=blow,
        pause_s=draw.uniform(0.3, 4.0),
        waking=draw.choice(WAKINGS),
        choice=draw.randrange(1000),
    )
    # A driver also dies before anything is durable: while it imports, plans, reaches the cluster.
    if (victim, blow) == ("driver", "KILL") and draw.random() < 0.3:
        return replace(strike, share=0.0, delay_s=draw.uniform(0.0, 4.0))
    return strike


SCHEDULES = tuple(draw_schedule(number) for number in range(NUM_SCHEDULES))
