"""Figures of the machine, and decisions on memory made of them. Nothing here imports MLX.

`figures.py`: one reading of a machine. `machine.py`: reads what the system knows; `card.py` adds an NVIDIA card, and
`executor/loading/device.py` MLX's part. `memory.py`: decisions. `kv_estimate.py`: KV state per token, from a model's
config.
"""
