"""The service. docs/architecture.md shows how its folders work together.

- `app`: puts everything together; `settings`: every setting with its default
- `generation`, `events`: the types of requests and answers; `normalize`: removes meaningless differences
- `errors`: the error tree; `profile`, `tallies`, `queries`: facts, counts and questions about a model
- `storage`, `logs`, `own_python`, `keep_awake`: files, log lines, processes, sleep
- `deadlines`, `coroutines`: time limits; work that may end without waiting
- `warming`, `explain`, `request_files`: prompts from files
"""
