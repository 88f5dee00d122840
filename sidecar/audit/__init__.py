"""What was done and decided, in chains of hashes that show when anybody changes them afterwards.

`entry.py` is what is told, `chain.py` how entries hang together and `verify.py` whether they still
do; `log.py` brings them to the sinks `files.py` and `stream.py`, off everybody's way.
"""
