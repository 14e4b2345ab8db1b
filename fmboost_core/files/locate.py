"""Where weights are: bundled names, paths, hf:// addresses."""

from __future__ import annotations

from pathlib import Path

from ..errors import CheckpointError, MissingDependencyError, reason
from .weight_file import open_weights

BUNDLED_MODELS = Path(__file__).parents[1] / "weights" / "models"
BUNDLED_CODECS = Path(__file__).parents[1] / "weights" / "codecs"
METADATA_KEY = "fmboost"


def bundled_models() -> list[str]:
    """Names of the models that come with the package, sorted. A codec's file is no model.

    A file that cannot be read is listed, so that asking for it says what is wrong with it.
    """
    return sorted(path.stem for path in BUNDLED_MODELS.glob("*.safetensors") if _may_be_model(path))


def _may_be_model(path: Path) -> bool:
    try:
        with open_weights(path) as file:
            return METADATA_KEY in file.metadata
    except CheckpointError:
        return True


def find_weights(name_or_path: str | Path) -> Path:
    """The file behind a bundled name, an hf:// address or a path; only hf:// reaches for a network."""
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
    except (OSError, ValueError):  # no name a file could have
        return False


def _download(address: str) -> Path:
    """hf://owner/repo/path/file@revision through huggingface_hub, which keeps a cache; without @, of main."""
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
