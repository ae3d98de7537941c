"""The errors of this suite itself, as opposed to those of the libraries that it runs.

Imports nothing: the upgrade check raises them under old libraries too.
"""


class BenchError(Exception):
    """Its text is one sentence for the user, who is never shown a traceback of it."""


class UsageError(BenchError):
    """What was asked for does not exist or makes no sense; the sentence says what to do."""
