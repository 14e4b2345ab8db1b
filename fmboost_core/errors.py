"""Every error that FMBoost raises on purpose, and its warning: a sentence that says what is wrong and what to do."""


class FMBoostError(Exception):
    """Base of all of them: catch this to catch whatever the core refuses."""


class ConfigError(FMBoostError, ValueError):
    """A setting has an impossible value; the message names the setting, the value and the valid ones."""


class CheckpointError(FMBoostError, ValueError):
    """A weight file is missing, cut, foreign or not a model; the message names the file and what was found."""


class LatentError(FMBoostError, ValueError):
    """A latent has the wrong shape, channels, type or content for the model or the codec."""


class ImageError(FMBoostError, ValueError):
    """A picture cannot be read or written; the message names the file."""


class NonFiniteError(FMBoostError, ArithmeticError):
    """A result holds NaN or infinity; it never becomes a picture."""


class MissingDependencyError(FMBoostError, ImportError):
    """An optional package is needed for what was asked; the message says how to install it."""


class Cancelled(FMBoostError):
    """The caller's cancellation asked to stop."""


class FMBoostWarning(UserWarning):
    """Something that works but will probably not give what was wanted."""


def reason(error: BaseException) -> str:
    """The first line of an error of someone else's, to be put in parentheses."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
