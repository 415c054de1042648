"""One model over several processes, on one machine or many. Rank 0 serves; the other ranks repeat its engine calls.

Each rank holds its part of the weights, and MLX exchanges activations inside each step, so all ranks must make the same
calls in the same order. `leader.py` and `follower.py`: rank 0 and the others, from start to end. `leading_engine.py`
sends each call, `replay.py` repeats it, `calls.py` encodes it, `wire.py` carries it along `route.py`. `ranks.py`: the
group as a Protocol, on MLX in `mlx_ranks.py`, in one process in `local_ranks.py`. `rank_loader.py` and `agreement.py`:
a rank's part of the model, and a prefix cache that is equal on all ranks.
"""
