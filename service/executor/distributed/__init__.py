"""One model over several processes. Rank 0 serves, and the other ranks repeat its engine calls.

Each rank holds a part of the weights. MLX exchanges activations inside each step, so all ranks make the same calls in
the same order. `leader.py` and `follower.py`: rank 0 and the others. `leading_engine.py`, `calls.py`, `wire.py`,
`route.py` and `repeat_calls.py`: the way of a call. `ranks.py`: the group, by MLX (`mlx_ranks.py`) or in one process
(`local_ranks.py`). `rank_division.py` and `agreement.py`: a rank's part of the model, and its prefix cache.
"""
