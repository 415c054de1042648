"""The prefix cache keeps KV state of prompts, in memory and on disk, for prompts that begin alike.

`cache.py`: find, keep and drop states. `tree.py`: the index of token spans; it decides which are evicted. `state.py`: a
span's part of mlx-lm's prompt caches. `store.py`, `writer.py` and `file.py`: the files, the thread that writes them,
their format. `worth.py`: which states are worth a file. `opening.py`: sizes, and the identity of a model's states.
`outline.py`: the tree for people.
"""
