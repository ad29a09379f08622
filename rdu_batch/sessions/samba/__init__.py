"""Sessions on SambaNova's RDU, through SambaFlow: the tutorial's single graph, or a cache.

Holds: the one import of ``sambaflow`` (``flow.py``); the two forms of graphs (``forms.py``): one
static graph, as in the tutorial (``single.py``, ``graph_inputs.py``), and several that share a
key/value cache, as in Model Zoo (``cached.py``, ``cached_inputs.py``, their names in
``symbols.py``); what they are traced from: GPT-2 rewritten for the RDU (``gpt2_patch.py``) and how
its weights then lie (``layout.py``), GPT-2 and Llama with a cache (``cached_model.py``), the model
as SambaFlow wants it (``rdu_model.py``); the PEF and the note beside it (``pef.py``), and how a
session is opened (``session.py``).
Promises: the calls to SambaFlow are the documented ones, in the documented order; one process opens
one session. A single graph computes all positions again for each token, and all their logits come
to the host; with a cache a token costs one position, and (1, V) logits come.
Does not: import SambaFlow before a session is opened or a model compiled; choose tiles, other than
among those that the operator lists (``tile_lease.py``): Slurm does, or SambaFlow.

Written to SambaNova's public documentation, and tested with a stand-in under ``tests/``; it has
never run on an RDU.
"""
