"""The `samba_logger` that patched models call [T: gpt2_patch.py]."""

from __future__ import annotations

import logging
from collections import Counter


class SambaLogger:
    """A logger whose messages may carry a limit of repetitions."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)
        self._seen: Counter[str] = Counter()

    def warning(self, message: str, log_limit: int | None = None) -> None:
        """Log a warning, at most `log_limit` times for one text [T]."""
        self._seen[message] += 1
        if log_limit is None or self._seen[message] <= log_limit:
            self._logger.warning(message)

    def info(self, message: str) -> None:
        """Log at level info."""
        self._logger.info(message)


samba_logger = SambaLogger("sambaflow")
