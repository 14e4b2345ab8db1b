"""The bundled recipes by name, without importing PyTorch."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent


def recipe_names() -> list[str]:
    """The names of the recipes that come with FMBoost, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def recipe_text(name: str) -> str:
    """The TOML of one of `recipe_names`."""
    return (FOLDER / f"{name}.toml").read_text(encoding="utf-8")
