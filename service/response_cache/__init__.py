"""The response cache: answers come from a store or from the generation in flight.

- `caching_executor`: the path of a request; `base`: the interface to the rest of the service
- `key`: makes the key; `policy`: decides which answers are looked up and stored
- `record`: the format of an answer; `store`: reads and writes it; `documents`: other contents of the store
- `single_flight`: shares a generation in this process; `replicas`: between servers
- `statistics`: counts; `stored`: lists a store; `upkeep`: the same in a running server;
  `questions`: their first lines, at debug level 2
"""
