"""Speculative decoding (Leviathan et al. 2022, arXiv:2211.17192), greedy: what comes next is guessed cheaply, and the
model checks several guesses in the time of one token. It changes how fast an answer comes, never what it says."""
