"""What can be typed: one file a command, each with a `main` that takes the options and returns the exit code.

What they have in common is in command_line.py.
"""
