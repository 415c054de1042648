"""Every work that writes files, ended at each of its fault points.

`works` has the works and what must hold after each end. `points` runs a work in forked processes and ends it at the
first, second, third ... time that it opens, renames, removes or creates something, and in the middle of its writes: it
is killed, or its disk is full or read-only from then on. Then it checks what is left, and that the same work succeeds
there. `power` does the same for a power failure.
"""
