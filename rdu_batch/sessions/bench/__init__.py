"""What ``rdu-batch bench`` measures: a compiled session against the limits of its machine.

Holds: what a token and a prompt cost (``costs.py``, pure, and ``model_costs.py``), what the machine
can do (``rates.py``), the rounds in which both are measured (``decode.py``, ``prefill.py``), what a
session is compared with (``plain.py``, ``variant.py``), sessions in processes of their own
(``side_by_side.py``, ``one_session.py``), and how it is all said (``rounds.py``, ``report.py``).

Promises: every ratio is taken inside a round, between neighbours of some ten milliseconds, because
a machine's memory is now twice as fast as it was a minute ago; medians and quartiles over rounds;
where a limit can be measured in several ways, the highest counts, so that fractions are not
flattered. Does not: run rows, or write anything but what ``--keep`` names.

Threads: torch's own routines leave their threads spinning for some milliseconds, in the way of the
decode kernels' threads. A worker decodes long after its prefill, so decode is timed after a rest of
``SETTLE_S`` and one token that does not count.
"""
