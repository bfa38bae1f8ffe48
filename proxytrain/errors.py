"""The two ways in which proxytrain says no to its user; everything else that is raised is a bug.

A `RequestError` is a wrong request (exit code 2): its message is one line that names the key or file, the value, and
what is allowed. A `Refusal` is a right request that the data cannot answer (exit code 1): its message says what is
missing and which runs would supply it.
"""


class RequestError(ValueError):
    """The request is wrong: one line naming the key or file, the value and what is allowed."""


class Refusal(Exception):
    """The data cannot answer: what is missing, and which runs would supply it."""
