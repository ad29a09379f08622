"""The command line: one file a verb; each parses, calls one function of a room, and prints.

Promises: standard output carries results, the last line of a verb that runs or judges a job is one
JSON object; everything else goes to standard error; the exit code tells the truth. No logic.
"""
