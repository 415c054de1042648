"""Answers in files.

- `archive`: the file format
- `transfer`: export and import of a store, for `anyclaude cache`
- `recorder`: writes a server's answers (`serve --record`)
- `player`: answers from such a file without a model (`serve --replay`)
"""
