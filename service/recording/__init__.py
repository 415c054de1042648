"""Answers in files: exported from a store and imported again, recorded from a server and replayed without a model."""
