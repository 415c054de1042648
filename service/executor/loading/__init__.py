"""Loads a model folder, and measures what it costs.

`model.py`: weights and tokenizer into memory. `failures.py`: why that failed, for people. `cache_kinds.py`: what can be
done with a model's state. `batching.py`: whether it can run in a batch, by trying. `cache_cost.py`: bytes of KV state
for given lengths. `free_memory.py`: what the system has left. `device.py`: MLX's limits, and what can be allocated.
"""
