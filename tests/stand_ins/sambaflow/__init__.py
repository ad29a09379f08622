"""A stand-in of the `sambaflow` package for tests: it checks contracts and claims no device.

Nothing here comes from SambaNova. A traced model runs by torch on the CPU. The names, signatures
and order of calls are those of public material; docstrings name the source in brackets:
[T] the tutorials repository, [SEED] the docs page of the tutorial, [DOC] docs.sambanova.ai,
[MZ] the modelzoo repository, [ALCF] Argonne's user guides, [WHL] the engine's wheel, [inf] a
conclusion. What public material leaves open is accepted in the documented forms only.
"""

__version__ = "1.21.0+stand.in"
