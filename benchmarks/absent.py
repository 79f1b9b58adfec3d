"""Why a contender is left out of a measurement."""


class AbsentError(Exception):
    """A contender cannot run here; the message says what it lacks."""
