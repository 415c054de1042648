"""An executor in a process of its own, so that its death does not end the server. A call is one request to it.

- `engine_process`: the server's `Executor`, one process after another; `child`: one of them
- `engine_calls`: the requests in flight, over all processes; `pending_call`: one request
- `identification`: the fingerprint of the model's files; `outage`: why a model is not served
- `orphan_guard`: ends an engine with its server where the kernel does not
- `quarantine`: which requests a process gets, so that a deadly one spares the others
- `engine_host`: the engine's side, started by `__main__`
- `priority`: what the engine leaves of the CPU to the server
- `call_messages`: what crosses; `frames`: messages as bytes; `log_lines`: the engine's log
"""
