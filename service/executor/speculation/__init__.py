"""Greedy speculative decoding (Leviathan et al. 2022, arXiv:2211.17192): drafters guess the next tokens cheaply, and
the model checks several guesses in about the time of one token. Speed changes, answers do not.

`drafter.py`: the `Drafter` Protocol and the `Pace` at which it guesses. `drafters.py`: which ones a sequence gets.
`forced.py`, `lookup.py` and `draft_model.py`: guesses by the grammar, by the text so far, and by a small model.
`engine/solo.py` checks the guesses.
"""
