"""The models of one server, by the names that clients use.

`registry` finds the model that a name means, and lists them. `residency` decides which of them are loaded: at most
those that fit into memory, and none that nobody has asked for a while.
"""
