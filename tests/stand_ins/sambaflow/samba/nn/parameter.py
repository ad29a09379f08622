"""Where programs import the SambaParameter from [T: gpt2_patch.py]."""

from __future__ import annotations

from sambaflow.stand_in.parameters import SambaParameter

__all__ = ["SambaParameter"]
