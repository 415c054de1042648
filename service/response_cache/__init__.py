"""Answers what was asked before from a store, and what is being asked right now from the generation in flight."""
