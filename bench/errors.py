"""The suite's own errors, as opposed to those of the libraries that it runs.

Imports nothing: the upgrade check raises them under old libraries too.
"""


class BenchError(Exception):
    """Its text is one sentence for the user, shown without a traceback."""


class UsageError(BenchError):
    """The user asked for something that does not exist or makes no sense; the sentence says what to do."""
