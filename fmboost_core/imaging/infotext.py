"""Infotext: the recipe that AUTOMATIC1111 and its kin write into a generated image, read and continued."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

KEYWORD = "parameters"  # of the PNG text
_SETTING = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')  # as the host parses it
_LEAST = 3  # settings; a last line with fewer belongs to the prompt


def is_infotext(text: str) -> bool:
    """Whether a text's last line holds settings."""
    last = text.strip().rpartition("\n")[2]
    return "Steps: " in last and len(_SETTING.findall(last)) >= _LEAST


def with_step(text: str, step: Mapping[str, str]) -> str:
    """The infotext with further settings; a text in another form (JSON, say) stays as it is.

    The settings go to the last line where that holds settings, else to a line of their own.
    """
    if text.lstrip().startswith(("{", "[")):
        return text
    text = text.rstrip()
    last = text.rpartition("\n")[2]
    settings = ", ".join(f"{key}: {_quoted(value)}" for key, value in step.items())
    return f"{text}, {settings}" if len(_SETTING.findall(last)) >= _LEAST else f"{text}\n{settings}"


def _quoted(value: str) -> str:
    """A value with quotes where it holds a character that ends one."""
    return json.dumps(value, ensure_ascii=False) if set(value) & set(',\n:"') else value
