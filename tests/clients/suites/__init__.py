"""The official SDKs' own tests, from their source archives, against this server.

`install.sh` fetches them, `failures.py` lists those that fail and why. `make test-suites` runs them.
"""
