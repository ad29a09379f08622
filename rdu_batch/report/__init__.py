"""What a person looks at while a job runs and when it has ended.

Promises: standard output carries results only, standard error everything else; numbers that are
shown add up. Does not: run anything, or know Ray or torch.
"""
