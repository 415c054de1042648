"""Speculative decoding (Leviathan et al. 2022, arXiv:2211.17192): drafters guess the next tokens, and the model checks
several guesses in about the time of one token. A guess is a single token, so accepting it with the model's probability
of it means to draw a token and to compare.

`drafter.py`: the `Drafter` Protocol and its `Pace`. `drafters.py`: which ones a sequence gets. `forced.py`,
`lookup.py`, `draft_model.py`: guesses by the grammar, the text so far, a small model. `step_times.py`: how many tokens
are worth guessing. `engine/solo.py` checks the guesses.
"""
