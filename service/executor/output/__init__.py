"""Turns the tokens of one answer into events.

`choice_writer.py`: the `Writer`, which calls all the others. `reasoning.py`: separates reasoning from the answer.
`reasoning_guard.py`: ends reasoning that takes too long or leads nowhere. `string_finder.py`: stop strings in streamed
text. `held_logprobs.py`: logprobs that wait for their text. `vocabulary.py`: the exact bytes of tokens.
"""
