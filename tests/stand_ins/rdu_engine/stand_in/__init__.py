"""What makes this package a stand-in; nothing of it exists in the real `rdu_engine`.

It shares contracts, faults, settings and PEFs with the stand-in of `sambaflow`.
"""
