"""An executor in a process of its own, so that the server outlives whatever ends it.

`engine_process` is the server's side, an `Executor` that starts, watches and replaces engine processes. `child` is one
such process seen from the server: its socket, its stderr, its end. `host` is the other side, with the process's `main`:
it runs any `Executor` behind the socket. `messages` declares what crosses, `frames` makes bytes of it, `log_lines`
carries the engine's log into the server's.
"""
