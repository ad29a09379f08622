"""The values of a job: its spec, its plan, its rows and records, its prompt, its paths.

Promises: everything here is a pure function of its arguments; nothing reads a file, a clock or the
environment. Does not: list inputs, touch a store, load a model or start anything.
"""
