"""``python -m rdu_batch`` is ``rdu-batch``."""

from rdu_batch.cli.main import main

main()
