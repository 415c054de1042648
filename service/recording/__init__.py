"""Answers in files.

`archive` is the file format. `transfer` exports the answers of a store and imports them again, for `anyclaude cache`.
`recorder` writes what a server answers (`--record`); `player` answers from such a file without a model (`--replay`).
"""
