"""What is wrong with the configuration, for whoever has to put it right."""


class ConfigError(Exception):
    """`where` is the file, the environment variable or the flag; `key` stands inside of it and may be empty."""

    def __init__(self, where: str, key: str, problem: str) -> None:
        super().__init__(": ".join(part for part in (where, key, problem) if part))
        self.where = where
        self.key = key
        self.problem = problem
