"""One program for each framework, run by the Python of tests/.cache/frameworks. `with_NAME.py` gives the framework's
default classes the two tools of `tools.py`, asks twice, and prints both answers."""
