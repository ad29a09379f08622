"""From prompt to tokens: artifacts, tokenizers, the decode loop, and every kind of session.

Holds: ``door.py`` (what each kind of session is to the rest), ``registry.py`` (kinds by name),
``tokenizer.py`` (prompts to ids and back), ``decode_loop.py`` with ``choosing.py``, ``sampling.py``
and ``stopping.py`` (one loop for all kinds), ``canary.py`` (does this machine compute the same
bits?), ``artifact.py`` (a compiled model as a folder), ``artifact_store.py`` (to read, fetch and
publish it), ``compile.py`` (makes it), ``perplexity.py`` (what int8 weights change), ``bench/``
(how fast it is), ``fake.py`` (a session for dry runs and tests), and the kinds that load a model.
Promises: importing the room, its registry or the fake session imports neither torch nor
transformers; the tokens of a row depend on the row and the job alone.
Does not: read rows, write outputs, or know about Ray.
"""
