"""Everything that generates: an `Executor` accepts a request and returns an `Answer` (`base.py`).

`mlx_executor.py` runs a model with MLX on the thread of `worker.py` and `runtime.py`, which `supervisor.py` watches.
`answer.py` and `answer_queue.py` deliver its answers. `scripted.py` needs no model. `loading/`, `prompt/`,
`scheduling/`, `engine/`, `prefix/`, `speculation/` and `output/` are the steps of a generation. `process/` puts an
executor into another process, `distributed/` a model on several.
"""
