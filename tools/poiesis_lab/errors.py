"""The lab's exception: its text contains the problem and what to do."""


class LabError(Exception):
    """An error that the command line prints without a traceback."""
