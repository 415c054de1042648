"""Fuzzing of everything that reads bytes of others. `make fuzz` gives each target two minutes.

`targets` has one function for each reader: it takes any bytes, and raises if a promise is broken. `__main__` feeds one
of them, guided by coverage. `corpus/TARGET/` holds the first inputs, and every input that ever broke a promise;
`test_corpus` runs them in `make test`.
"""
