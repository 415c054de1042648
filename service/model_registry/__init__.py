"""The models of one server.

`registry` finds the model that a client names. `residency` decides which are loaded: those that fit into memory and
were used lately. `configured` has the settings of each.
"""
