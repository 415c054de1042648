"""The engine on MLX reads prompts and decodes tokens, on the MLX thread.

`batch_engine.py`: the `Engine`. `run.py`: one sequence in it. `batch.py`: batched decoding by mlx-lm. `solo.py`: one
sequence with guesses. `undo.py`: recurrent state after a wrong guess. `single.py`: a model that cannot batch.
`sampling.py`, `constraint.py`: penalties, sampling and grammars. `chunks.py`: how much of a prompt is read at once.
`lanes.py`: parts of a prompt at the same time, on a CPU. `embedding.py`: embeddings.
"""
