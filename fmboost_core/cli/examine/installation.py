"""The installation: FMBoost, Python and their host, other packages, the current folder. PyTorch is not needed here."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import subprocess
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from ... import __version__
from ...errors import reason
from .finding import NOTE, PROBLEM, Finding

ROOT = Path(__file__).parents[3]
OLDEST_COMFYUI = "0.3.64"


class Package(NamedTuple):
    """module: as it is imported. pip: as it is installed. purpose: what needs it."""

    module: str
    pip: str
    purpose: str


REQUIRED = (
    Package("safetensors", "safetensors", "all models"),
    Package("einops", "einops", "all models"),
    Package("numpy", "numpy", "images"),
    Package("PIL", "Pillow", "images"),
    Package("tqdm", "tqdm", "the command line"),
)
OPTIONAL = (
    Package("torchdiffeq", "torchdiffeq", "adaptive solvers such as dopri5"),
    Package("huggingface_hub", "huggingface_hub", "hf:// addresses"),
    Package("shtab", "shtab", "fmboost completion"),
    Package("diffusers", "diffusers", "KL autoencoders in training, and the pipeline for diffusers"),
    Package("transformers", "transformers", "CLIP-IQA in evaluation"),
    Package("accelerate", "accelerate", "training"),
    Package("tensorboard", "tensorboard", "training"),
    Package("scipy", "scipy", "degraded images in training, FID"),
    Package("efficientnet_lite_pytorch", "efficientnet-lite-pytorch", "ImageNet features in training"),
    Package("torchmetrics", "torchmetrics", "metrics in evaluation"),
    Package("matplotlib", "matplotlib", "plots in evaluation"),
    Package("skimage", "scikit-image", "make demo, and the tests"),
)


def installation() -> Iterator[Finding]:
    """FMBoost's version and place, Python, the host, the packages, the current folder."""
    commit = _git(ROOT, "rev-parse", "--short", "HEAD")
    where = f"installed in {ROOT}" if ROOT.name in ("site-packages", "dist-packages") else f"a folder, {ROOT}"
    yield Finding("fmboost", f"{__version__}{f', commit {commit}' if commit else ''}, {where}")
    yield Finding("python", f"{platform.python_version()}, {platform.platform()}")
    yield host_of(ROOT)
    yield from _packages()
    yield _current_folder()


# --- the host


def host_of(root: Path) -> Finding:
    """The host that a folder of FMBoost lies in, by the folder's place, and its version by the host's own files."""
    if root.parent.name == "custom_nodes":
        return _comfyui(root.parents[1])
    if root.parent.name == "extensions":
        return _web_ui(root.parents[1])
    return Finding("host", "none: neither in ComfyUI's custom_nodes nor in a web UI's extensions")


def _comfyui(host: Path) -> Finding:
    version = _find(host / "comfyui_version.py", r"__version__\s*=\s*['\"]([^'\"]+)")
    update = f"update ComfyUI to {OLDEST_COMFYUI} or newer"
    if version is None:
        return Finding("host", f"ComfyUI of an unknown version in {host}", NOTE, update)
    found = f"ComfyUI {version}{_commit(host)} in {host}"
    if _numbers(version) < _numbers(OLDEST_COMFYUI):
        return Finding("host", f"{found}, which is too old", PROBLEM, update)
    return Finding("host", found)


def _web_ui(host: Path) -> Finding:
    forge = _find(host / "modules_forge" / "forge_version.py", r"version\s*=\s*['\"]([^'\"]+)")
    if forge is not None:
        return Finding("host", f"Forge {forge}{_commit(host)} in {host}")
    version = _find(host / "CHANGELOG.md", r"(?m)^## (\S+)")
    if version is None:
        return Finding("host", f"a web UI of an unknown version{_commit(host)} in {host}", NOTE, "see docs/webui.md")
    return Finding("host", f"AUTOMATIC1111 {version}{_commit(host)} in {host}")


def _find(path: Path, pattern: str) -> str | None:
    """The group of a pattern in a file that is only read, never run; None where either is missing."""
    try:
        match = re.search(pattern, path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    return match[1] if match else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:3]))


def _commit(folder: Path) -> str:
    commit = _git(folder, "describe", "--tags", "--always")
    return f" ({commit})" if commit else ""


def _git(folder: Path, *words: str) -> str:
    """What git says of a clone; "" where the folder is none, or git is missing or refuses."""
    if not (folder / ".git").exists():
        return ""
    try:
        said = subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return said.stdout.strip()


# --- packages, the current folder


def _packages() -> Iterator[Finding]:
    """A finding for the packages of each kind that are there, and one for each package that is not."""
    for name, packages, state in (("packages", REQUIRED, PROBLEM), ("optional", OPTIONAL, NOTE)):
        there = [package for package in packages if importlib.util.find_spec(package.module) is not None]
        versions = {package.pip: _version(package) for package in there}
        if versions:
            yield Finding(name, ", ".join(f"{pip} {version}" for pip, version in versions.items()), figures=versions)
        for package in packages:
            if package not in there:
                yield Finding(package.pip, f"missing, for {package.purpose}", state, f"pip install {package.pip}")


def _version(package: Package) -> str:
    try:
        return metadata.version(package.pip)
    except metadata.PackageNotFoundError:  # a folder on the path, without metadata
        return "of an unknown version"


def _current_folder() -> Finding:
    try:
        with tempfile.NamedTemporaryFile(prefix=".fmboost-doctor", dir=os.curdir):
            return Finding("folder", f"{Path.cwd()} can be written to")
    except OSError as error:
        found = f"the current folder cannot be written to ({reason(error)})"
        return Finding("folder", found, NOTE, "name outputs elsewhere")
