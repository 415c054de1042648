"""The models of one server, by the names that clients use.

`registry` finds the model of a name and lists all. `residency` decides which are loaded: those that fit into memory and
were used lately. `configured` has the settings of each.
"""
