"""The one exception whose message is meant for the person at the keyboard."""


class UserError(Exception):
    """Something the user gave is wrong.

    The command lines print the message as one line and exit with code 2, so it says what was wrong,
    what was expected, what was got, and where.
    """
