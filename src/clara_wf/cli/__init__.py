"""The command line, and the only room that wires the others together.

A module here parses arguments, calls other rooms and shows what they say; what decides or computes belongs in those
rooms. It never imports an operator: runners start those as programs of their own.
"""

from clara_wf.cli.app import main

__all__ = ["main"]
