"""What the service costs and what it saves, measured: `python -m benchmarks [CASE ...]`.

A case lives in one file of `benchmarks.cases`. Every run of it is a fresh process with fresh servers, and its ratios
are made within one run, of rounds that alternate between us and what we are compared with: a machine that slows down
half-way slows both sides.
"""
