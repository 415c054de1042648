import hypothesis

USUAL = 100


def examples(count: int) -> hypothesis.settings:
    """Tries `count` examples, and a tenth of them in `make test-fast`."""
    return hypothesis.settings(max_examples=max(1, count * hypothesis.settings().max_examples // USUAL))
