"""Measures what the service costs and what it saves: `python -m benchmarks [CASE ...]`.

`cases/` holds one case a file, `case.py` the types that a case uses. `runner.py` runs a case in fresh processes
(`one_run.py`), `report.py` and `plots.py` publish the figures. `processes.py` starts the servers under measurement,
`peers/` holds what they are compared with, `http_client.py` makes the load.

A ratio comes from rounds of one run that alternate between both sides, so a machine that slows down slows both.
"""
