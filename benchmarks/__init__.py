"""`python -m benchmarks [CASE ...]` measures what the service costs and what it saves; docs/benchmarks.md shows the
results.

`cases/`: one case a file, of the types in `case.py`. `runner.py`: runs a case in fresh processes (`one_run.py`).
`report.py` and `plots.py`: publish the figures. `processes.py`: the servers under measurement. `peers/`: what they
are compared with. `http_client.py`: the load.
"""
