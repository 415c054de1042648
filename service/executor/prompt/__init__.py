"""From a request to the tokens that the model reads. Runs on the tokenizer's thread.

`renderer.py`: the model's own chat template, and what it cannot show. `hf_messages.py`: conversations as templates read
them. `call_style.py`: how a template wants tool calls, found by asking it. `boundaries.py`: where messages end.
`grammars.py`: the compiled form of an answer. `size_limit.py`: prompts that are too long to tokenize.
"""
