"""Sessions on SambaNova's RDU, through SambaFlow: the tutorial's single static graph.

Holds: the one import of ``sambaflow`` (``flow.py``), GPT-2 rewritten for the RDU
(``gpt2_patch.py``) and how its weights then lie (``layout.py``), what a graph takes
(``graph_inputs.py``), the model as SambaFlow wants it (``rdu_model.py``), the PEF and the note
beside it (``pef.py``), what a device's exceptions mean (``device_faults.py``), and the session
(``session.py``).
Promises: the calls to SambaFlow are the documented ones, in the documented order; one process opens
one session. A static graph has no key/value cache here: each token computes all positions again.
Does not: import SambaFlow before a session is opened or a model compiled; pin tiles, which is the
scheduler's part (Slurm, or SF_RNT_TILE_AFFINITY in the environment).

Written to SambaNova's public documentation, and tested with a stand-in under ``tests/``; it has
never run on an RDU.
"""
