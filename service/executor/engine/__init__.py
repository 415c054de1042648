"""The engine on MLX: it reads prompts and decodes tokens, on the one thread that owns MLX.

`batch_engine.py`: the `Engine` itself: memory, the order of prompts, batch or solo, the prefix cache. `run.py`: one
sequence inside the engine. `batch.py`: decoding side by side by mlx-lm. `solo.py`: one sequence with guesses.
`single.py`: one sequence of a model that cannot batch. `sampling.py`: samplers and penalties. `constraint.py`: logits
of tokens that a grammar forbids.
"""
