"""rdu_batch: push a large JSONL prompt corpus through one compiled model, exactly once."""

__version__ = "0.1.0"
