"""The prefix cache: KV state of prompts, kept in memory and on disk for prompts that begin alike.

`cache.py`: what the engine calls: find, keep, drop. `tree.py`: the index of token spans. `state.py`: what a span adds
to mlx-lm's prompt caches. `store.py`, `writer.py` and `file.py`: the files, the thread that writes them, their bytes.
`opening.py`: sizes, and the identity of a model's states.
"""
