"""`python -m benchmarks [CASE ...]` measures what the service costs and what it saves; docs/benchmarks.md shows the
results.

`cases/`: one case a file, of the types in `case.py`. `runner.py`: runs a case in fresh processes (`one_run.py`).
`report.py` and `plots.py`: publish the figures with their `environment.py`. `processes.py`: the servers under
measurement, with `ports.py`, `model_folders.py`, `tiny_model.py`, `faulty_server.py` and `processor_time.py`. `peers/`,
`floor.py` and `stores.py`: what they are compared with. `http_client.py`, `request_bodies.py`, `conversations.py` and
`traffic.py`: the load.
"""
