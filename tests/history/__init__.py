"""Servers that share a real Redis, under faults, and what their recorded histories must show.

`worker` is a process with a server's response cache and clients; `faults` stops, kills and cuts off; `proxy` stands
between workers and Redis; `promises` checks a history. All times are of the machine's monotonic clock.
"""
