"""Speculative decoding (Leviathan et al. 2022, arXiv:2211.17192): drafters guess the next tokens, and the model checks
several guesses in about the time of one token. A drafter names one token for each position, without probabilities. The
paper's test then becomes simple: draw a token from the model's distribution, and accept the guess if they are equal.

`drafter.py`: the `Drafter` Protocol and its `Pace`. `drafters.py`: which ones a sequence gets. `forced.py`,
`lookup.py`, `draft_model.py`: guesses by the grammar, the text so far, a small model. `experience.py`: how many tokens
are worth guessing, by the success of earlier guesses and, in `step_times.py`, by what steps take. `engine/solo.py`
checks the guesses.
"""
