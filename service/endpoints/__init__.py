"""The handlers of all paths. `http/gate.py` has set headers and caller in the scope's state.

- `generation`: the `POST` of every dialect, from bytes to an answer and back
- `searching`: the same with web searches; `responses_api`: with stored responses too (`stored_responses`);
  `prompts`: with several prompts (`joined_answer`)
- `count_tokens`, `tokens`, `models`, `health`: the rest of the API
- `stats`, `metrics`, `dashboard`, `connect`, `cache`, `prefix_cache`, `traces`, `logs`, `recommended`: for people and
  monitors
- `context`: objects that all endpoints share

`service.app` lists the routes. `OpenRoute` marks those that need no key.
"""
