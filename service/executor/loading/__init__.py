"""Loads a model folder and measures its costs.

`model.py`: weights and tokenizer into memory. `failures.py`: reasons for people. `cache_kinds.py`: what a model's state
allows. `batching.py`: whether it can run in a batch. `cpu_attention.py` and `softmax.py`: attention on a CPU.
`shared_prefix.py`: a batch whose sequences begin alike. `cache_cost.py`: bytes of KV state. `device.py`: figures and
limits of MLX. `simulated_mlx.py`: those of another machine. `attention.py`: sizes for the choice of chunks.
"""
