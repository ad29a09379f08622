"""The graph of a multigraph [MZ: cached_inference_compiler.py]."""

from __future__ import annotations

from sambaflow.stand_in.multigraph import FwdGraph

__all__ = ["FwdGraph"]
