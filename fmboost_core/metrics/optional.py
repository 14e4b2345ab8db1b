"""Imports of optional packages, with an error that says how to install them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import MissingDependencyError, reason


def require_torchmetrics(part: str) -> Any:
    """The module torchmetrics.PART. Raises `MissingDependencyError` where it is missing."""
    with needs("This metric", "torchmetrics"):
        return importlib.import_module(f"torchmetrics.{part}")


@contextmanager
def needs(what: str, package: str) -> Iterator[None]:
    """Turn an ImportError of the body into a `MissingDependencyError` that names the package."""
    try:
        yield
    except ImportError as error:
        raise MissingDependencyError(f"{what} needs {package} ({reason(error)}): pip install {package}.") from None
