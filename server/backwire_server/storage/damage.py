"""What tells that bytes from a disk or a stranger cannot be what was written."""


class Damaged(ValueError):
    """The bytes are damaged, or they are something else.

    The message says what is wrong with them; which file that is, and what to do about it, is for the caller to add.
    """
