"""What the lab raises: one type, whose text says what is wrong and what to do next."""


class LabError(Exception):
    """Printed without a traceback by the command line."""
