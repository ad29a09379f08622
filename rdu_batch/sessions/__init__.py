"""From prompt to tokens: artifacts, tokenizers, the decode loop, and every kind of session.

Holds: ``door.py`` (what each kind of session is to the rest), ``registry.py`` (kinds by name),
``tokenizer.py`` (prompts to ids and back), ``decode_loop.py`` with ``choosing.py``, ``sampling.py``
and ``stopping.py`` (one loop for all kinds), ``canary.py`` (does this machine compute the same
bits?), ``artifact.py`` (a compiled model as a folder), ``artifact_store.py`` (to read, fetch and
publish it), ``artifact_cache.py`` (a node's private copies), ``compile.py`` (makes it, from what
``checkpoint.py``, ``plain_model.py`` and ``named_weights.py`` read), ``compile_settings.py`` and
``compile_out.py`` (how, and where to), ``weight_binding.py`` (weights for one that was compiled
without), ``perplexity.py`` (what int8 weights change), ``bench/`` (how fast it is),
``continuing.py`` (prompts continued in this process, as the tutorial does), ``fake.py`` (a session
for dry runs and tests), and the kinds that load a model: ``inductor/`` (compiled for processors and
GPUs), ``eager.py`` (transformers as it is), ``samba/`` and ``rdu_engine/`` (SambaNova's RDU, by two
runtimes). These two share ``graph_session.py`` (rows over a device's graphs) and
``device_faults.py`` (what a runtime's exceptions mean); ``exact_gelu.py`` gives the other kinds the
activation that a GPT-2 has there.
Promises: importing the room, its registry or the fake session imports neither torch nor
transformers; the tokens of a row depend on the row and the job alone.
Does not: read rows, write outputs, or know about Ray.
"""
