"""The programs that the service is compared with. Each runs in a process of its own.

- `mlx_lm_server`, `mlx_lm_generate`: mlx-lm's server, and its generation without a server
- `raw_decode`: speeds of prefill and decoding without a scheduler
"""
