"""The file behind a bundled name, a path or an hf:// address."""

from __future__ import annotations

from pathlib import Path

from ..errors import CheckpointError, MissingDependencyError, reason

BUNDLED_MODELS = Path(__file__).parents[1] / "weights" / "models"
BUNDLED_CODECS = Path(__file__).parents[1] / "weights" / "codecs"


def bundled_models() -> list[str]:
    """Names of the models that come with the package, sorted. None of them is opened."""
    return sorted(path.stem for path in BUNDLED_MODELS.glob("*.safetensors"))


def find_weights(name_or_path: str | Path) -> Path:
    """The file behind a bundled name, an hf:// address or a path. Only hf:// uses the network."""
    name = str(name_or_path)
    if name.startswith("hf://"):
        return _download(name)
    bundled = bundled_models()
    if name in bundled:
        return BUNDLED_MODELS / f"{name}.safetensors"
    path = Path(name)
    if not _exists(path):
        raise CheckpointError(
            f"There is no model {name!r}: the bundled ones are {', '.join(bundled) or 'none'}, and a path must exist."
        )
    return path


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # no file can have such a name
        return False


def _download(address: str) -> Path:
    """Fetch hf://owner/repo/path/file@revision (main by default) through huggingface_hub and its cache."""
    location, _, revision = address.removeprefix("hf://").partition("@")
    owner, repo, file = (*location.split("/", 2), "", "")[:3]
    if not (owner and repo and file):
        raise CheckpointError(f"{address} is not of the form hf://owner/repo/path/file@revision.")
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise MissingDependencyError(f"{address} needs huggingface_hub: pip install huggingface_hub.") from None
    try:
        return Path(hf_hub_download(f"{owner}/{repo}", file, revision=revision or "main"))
    except Exception as error:  # the hub's, its HTTP client's and the disk's errors have no common base
        raise CheckpointError(f"{address} could not be fetched ({type(error).__name__}: {reason(error)}).") from error
