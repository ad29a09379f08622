"""Sessions compiled ahead of time by torch.export and AOTInductor, through transformers' own code.

Holds: patches of modules for the target (``patches.py``), attention and its masks
(``attention.py``), constant rotary frequencies (``rotary.py``), the families that are tested
(``families.py``), the key/value cache written in place (``cache.py``), decode kernels of our own
(``kernels/``), the graphs and their compilation (``export.py``), the pinned instruction sets
(``target.py``), the weights file that all sessions of a node share (``weights.py``) and the session
(``session.py``). Promises: a compiled graph holds no weights and needs no compiler to load.
Does not: read checkpoints or write artifacts; see ``checkpoint.py`` and ``compile.py``.
"""
