"""The one exception for mistakes that the user can correct."""


class UserError(Exception):
    """A mistake in what the user gave: a path, an option, a file.

    The message is one clear sentence (a list may follow): what is wrong, where, and what to do. Commands print it
    without a traceback and exit with status 2.
    """

    def __str__(self) -> str:
        # An error of a worker process that prepares batches comes with the process's traceback before its message.
        return super().__str__().rpartition(f"{__name__}.{type(self).__name__}: ")[2].rstrip()
