"""The one error that reaches a person running a `make` target."""


class SetupError(Exception):
    """Something this machine lacks or refuses. The message is one sentence with the remedy."""
