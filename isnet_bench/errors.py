"""The error that a user can mend."""


class BenchError(Exception):
    """What the user asked for cannot be done.

    The message is one sentence: what is wrong, where, and the remedy.
    """
