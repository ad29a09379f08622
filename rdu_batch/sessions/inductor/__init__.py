"""Sessions compiled ahead of time by torch.export and AOTInductor, through transformers' own code.

Holds: patches of modules for the target (``patches.py``), attention and its masks
(``attention.py``), constant rotary frequencies (``rotary.py``), the families that are tested
(``families.py``), the key/value cache written in place (``cache.py``), decode kernels of our own
(``kernels/``), the graphs and their compilation (``export.py``), the pinned instruction sets
(``target.py``), what Inductor is told (``options.py``), the weights file that all sessions of a
node share (``weights.py``), the session (``session.py``) and its decode on a GPU (``replay.py``).
Promises: a compiled graph holds no weights and needs no compiler to load.
Does not: read checkpoints or write artifacts; see ``checkpoint.py`` and ``compile.py``.

Device ``cuda`` (``rdu-batch compile --device cuda``) is written against torch 2.13's documented
interfaces and has never run on a GPU. Its graphs have no kernels of this project: products and
attention are Inductor's and the library's. It wants a torch built for CUDA, the toolkit's headers
where models are compiled, and ``workers.gpus: 1`` in the job, so that Ray gives each worker a GPU.
"""
