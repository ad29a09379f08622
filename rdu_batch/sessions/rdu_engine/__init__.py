"""Sessions on SambaNova's RDU through ``rdu_engine``, the runtime that is public today.

Holds: the one import of ``rdu_engine`` (``engine.py``), the weights as it reads them
(``weights.py``), the graphs that it runs (``graphs.py``), and the session (``session.py``).
It opens artifacts of kind ``samba`` that were compiled with ``--graphs cached``: SambaFlow
compiles, ``rdu_engine`` runs, and the host that runs needs no SambaFlow in Python.
Promises: the runtime is asked for nothing but the calls below, by symbols whose names are those of
``samba/symbols.py``; a PEF that does not fit is refused when it is opened, not in the middle of a
job. Does not: compile; keep more than one checkpoint on the device; choose tiles.

What the calls rest on. "Documented" is what Model Zoo's code and the signatures, docstrings and
messages in the wheel ``sambanova-rdu-engine-api`` 1.27.0.post1 say; nothing of it was run.

    PEF(path)                         documented
    pef.get_schedules()               documented: a set of names; that they are those which the
                                      graphs had when they were compiled is Model Zoo's use
    get_checkpoint_spec(path)         documented: {name: {"shape", "dtype"}} of the weights
    pef.load_checkpoint(folder)       documented by the file names model.safetensors and
                                      model.safetensors.index.json, and by messages; that a folder
                                      of both is read, and that names are SambaFlow's (``a__b``) or
                                      the checkpoint's (``a.b``), is inferred: both are understood
    pef.run(checkpoint, {symbol: tensor}, schedule, reuse_outputs=True)
                                      documented; symbols that are not given keep their value on the
                                      device: inferred from the message for uninitialized ones
    output.get_tensor("logits")       documented; that only this one then reaches the host, and that
                                      the next run overwrites it, is inferred, and it is copied
    exceptions' names                 documented; which of them blame the row is inferred
    "PEF version mismatch"            documented for SambaFlow, inferred here
    a PEF compiled by SambaFlow       documented by Model Zoo, whose compile settings have one,
                                      ``enable_coe``; whether it is needed is not public: where the
                                      engine refuses a PEF, try it when compiling

Written to public material, and tested with a stand-in under ``tests/``; it has never run on an RDU.
"""
