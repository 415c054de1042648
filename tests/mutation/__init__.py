"""Changes the code in small ways and counts the changes that no test notices.

`__main__` makes the mutants with mutmut and starts pytest; `plugin` runs tests against each mutant; `results` keeps and
prints what came of it.
"""
