"""The command line `fmboost`."""

from .app import main as main
