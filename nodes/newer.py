"""What newer hosts know of a schema and the oldest one does not: passed only where the host takes it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from comfy_api.latest import io

# What people type who look for an upscaler of latents.
UPSCALER_WORDS = ("latent upscale", "upscale latent", "hires fix", "highres fix", "super resolution", "enlarge")


def taken(function: Callable[..., Any], **wanted: Any) -> dict[str, Any]:
    """Those keyword arguments that a function or a class of the host knows."""
    known = inspect.signature(function).parameters
    return {name: value for name, value in wanted.items() if name in known}


def schema(*, words: tuple[str, ...] = (), **fields: Any) -> io.Schema:
    """A schema of this pack. words: what else the node is found by, where the host's search has such a list."""
    aliases = ["FMBoost", *words]
    return io.Schema(category="FMBoost", **fields, **taken(io.Schema, search_aliases=aliases))


def folded(kind: type[Any], *args: Any, **fields: Any) -> io.Input:
    """A widget that is turned rarely: newer hosts fold it away, older ones show it. kind: such as `io.Combo`."""
    return kind.Input(*args, **fields, **taken(kind.Input, advanced=True))
