"""One model over several processes, on one machine or many: rank 0 serves, the others follow it call by call.

Each rank holds its part of the weights, and MLX exchanges activations inside of every step. So all ranks must make the
same calls, in the same order, on engines that decide the same. `calls` is what rank 0 tells, `leading` and `following`
are the two sides, `wire` carries the calls, `ranks` is the group, `team` loads what each rank needs.
"""
