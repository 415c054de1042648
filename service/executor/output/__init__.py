"""From the tokens of one answer to its events.

`choice_writer.py`: the `Writer` that leads a token through all steps. `reasoning.py`: separates reasoning from the
answer. `string_finder.py`: stop strings in a text that arrives in pieces. `held_logprobs.py`: logprobs that wait for
their text. `vocabulary.py`: the exact bytes of tokens.
"""
