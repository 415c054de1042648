"""Continuous batching: which sequences wait, run and end. No file here imports MLX.

`scheduler.py`: the loop that admits, steps and delivers. `messages.py`: Structs between the event loop and the engine's
thread. `protocols.py`: `Engine` and `Writer`. `room.py`: memory, counted in tokens. `places.py`: how many run at a
time. `running.py`: one running sequence. `outbox.py`: which deliveries leave together. `turns.py`: which prompt is
next. `trials.py`: retries after a failure. `time_slices.py`: turns between processes. `pulse.py`: counters for other
threads.
"""
