"""Errors that a user can mend: one clear message each, mapped to an exit code by the CLI."""

from __future__ import annotations


def one_line(error: BaseException) -> str:
    """Say what went wrong in one line; its kind where it has no words."""
    return " ".join(str(error).split()) or type(error).__name__


class FeieError(Exception):
    """Base of every error that feie raises on purpose.

    The message names the file or value at fault and says what to do about it.
    The CLI prints it without a traceback and exits with `exit_code`.
    """

    exit_code: int = 2


class UsageError(FeieError, ValueError):
    """An option, a path or a configuration that makes no sense."""


class TermsError(UsageError):
    """Terms that nobody has accepted.

    Parameters
    ----------
    message : str
    question : str
        What a person can be asked in its place, to be answered by yes or no.
    option : str
        Name of the option that a yes turns on.
    """

    def __init__(self, message: str, question: str, option: str) -> None:
        super().__init__(message)
        self.question = question
        self.option = option


class UnknownNameError(UsageError, KeyError):
    """A video, column, group, … that the store does not hold."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would put it into quotes


class MissingWeightsError(FeieError, FileNotFoundError):
    """Weights of a detector or extractor are not on this machine."""


class StoreError(FeieError):
    """A store that cannot be opened, read or written."""


class StoreNotFoundError(StoreError, FileNotFoundError):
    """There is no store at the path."""


class StoreVersionError(StoreError):
    """The store follows a version of the specification that this feie does not know."""


class StoreLockedError(StoreError):
    """Another process writes this store."""


class StoreMismatchError(StoreError):
    """The store was made with other weights or options than the ones asked for."""


class LinkError(FeieError):
    """A link below an output or a store, where none is followed."""


class LabelError(FeieError, ValueError):
    """A label file that cannot be used: missing or duplicate ids, NaN, no join."""


class HeadError(FeieError):
    """A head, checkpoint or run that cannot be used."""


class DataError(FeieError, ValueError):
    """A training pack or configuration of data that cannot be used."""


class EngineError(FeieError):
    """What extracts broke down, and neither a video nor an option is known to be the cause."""

    exit_code = 1


class VideoError(FeieError):
    """One video cannot be processed; the run goes on and names it.

    Parameters
    ----------
    reason : str
        A short code, e.g. ``empty``, ``broken``, ``truncated``, ``no-video-stream``.
    message : str
        What was found, in a sentence.
    """

    exit_code = 3

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message

    def __reduce__(self) -> tuple[type[VideoError], tuple[str, str]]:
        """Keep both arguments across process boundaries."""
        return type(self), (self.reason, self.message)
