"""Continuous batching: which sequences wait, run and end. Nothing here imports MLX.

`messages.py`: the Structs that cross between the event loop and the engine's thread. `protocols.py`: what the
scheduler calls, an `Engine` and its `Writer`s. `scheduler.py`: the loop that drains the inbox, admits, steps and
delivers. `turns.py`: which waiting prompt is next. `trials.py`: what runs again after a failure, and what is to blame.
`pulse.py`: the counters by which other threads see that the engine works.
"""
