"""Figures of the machine, and decisions on memory made of them. Nothing here imports MLX.

`figures.py`: `DeviceFigures`, one reading of a machine; tests make their own for machines that are not at hand.
`machine.py`: reads what the system knows. MLX's part is read by `executor/loading/device.py`, which alone calls MLX.
`memory.py`: pure decisions on memory, made of figures. `kv_estimate.py`: KV state per token, from a model's config.
"""
