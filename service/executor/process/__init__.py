"""An executor in a process of its own, so that the server outlives whatever ends it.

- `engine_process`: the server's side, an `Executor` that starts, watches and replaces engine processes
- `pending_call`: a request in one of them; `child`: one such process, with its socket, its stderr and its end
- `host`: the other side, with the process's `__main__`; it runs any `Executor` behind the socket
- `messages`: what crosses; `frames`: messages as bytes; `log_lines`: the engine's log in the server's
"""
