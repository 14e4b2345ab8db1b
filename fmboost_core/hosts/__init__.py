"""Adapters for libraries that are hosts of a kind: nothing else of the core imports them."""
