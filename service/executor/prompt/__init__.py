"""Turns a request into the tokens that the model reads, on the thread of `preparation.py`.

`renderer.py` and `template.py`: the model's chat template. `hf_messages.py`: conversations in the form of templates.
`call_style.py`: how a template wants tool calls. `control_tokens.py`: markers that are tokens, and markers that are
text. `raw.py`: prompts without a template. `boundaries.py`: ends of messages. `grammars.py`: the compiled form of an
answer. `size_limit.py`: prompts too long to tokenize.
"""
