"""The response cache: answers from a store, or from the generation in flight.

`executor` is the way of a request, `base` the interface to the rest of the service. `key` makes the key, `policy`
decides what is looked up and stored, `record` is the format of an answer, `store` reads and writes it. `single_flight`
shares a generation in this process, `replicas` between servers. `statistics` counts. `stored` lists a store, `upkeep`
does it for a running server and empties the store.
"""
