"""The file behind a bundled name, a path or an hf:// address."""

from __future__ import annotations

from pathlib import Path

from ..errors import CheckpointError, MissingDependencyError, reason
from ..families import FAMILIES

BUNDLED_MODELS = Path(__file__).parents[1] / "weights" / "models"
BUNDLED_CODECS = Path(__file__).parents[1] / "weights" / "codecs"
BUNDLED_UPSCALE_MODELS = Path(__file__).parents[1] / "weights" / "upscale_models"
# The bundled upscale models: for finished images, for decoded latents, and the sharpened mean of what both make.
IMAGE_UPSCALE_MODEL, LATENT_UPSCALE_MODEL = "fmboost-image-x2", "fmboost-latent-x2"
MEAN_UPSCALE_MODEL = "fmboost-mean-x2"
CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"  # in a folder as hubs have it


def bundled_models() -> list[str]:
    """Names of the models that come with the package, in the order of `FAMILIES`, then by name. None is opened.

    The first one is where the hosts' lists begin.
    """
    places = {family: place for place, family in enumerate(FAMILIES)}
    names = [path.stem for path in BUNDLED_MODELS.glob("*.safetensors")]
    return sorted(names, key=lambda name: (places.get(name.partition("-")[0], len(places)), name))


def bundled_upscale_models() -> list[str]:
    """Names of the upscale models that come with the package, the default first. None is opened."""
    names = (path.stem for path in BUNDLED_UPSCALE_MODELS.glob("*.safetensors"))
    return sorted(names, key=lambda name: (name != IMAGE_UPSCALE_MODEL, name))


def upscale_model_names() -> list[str]:
    """What names a bundled upscale model: the files, and the mean of two of them."""
    return [*bundled_upscale_models(), MEAN_UPSCALE_MODEL]


def latent_upscale_model(family: str | None) -> str:
    """The name of the bundled upscale model for the decoded latents of a family; None for one that is not known.

    With SD3 the mean is nearer to the originals, and viewers preferred it (research/upscale-models.md).
    """
    return MEAN_UPSCALE_MODEL if family == "sd3" else LATENT_UPSCALE_MODEL


def find_weights(name_or_path: str | Path) -> Path:
    """The file behind a bundled name, an hf:// address or a path. Only hf:// uses the network.

    A folder and hf://owner/repo@revision stand for the file `WEIGHTS` in them.
    """
    name, bundled = str(name_or_path), bundled_models()
    if name in bundled:
        return BUNDLED_MODELS / f"{name}.safetensors"
    if is_address(name):
        location, revision = split_revision(name)
        name = f"{location}/{WEIGHTS}{revision}" if location.count("/") == 3 else name
    path = find_file(name)
    if _exists(path / WEIGHTS):
        return path / WEIGHTS
    if not _exists(path):
        raise CheckpointError(
            f"There is no model {name!r}: the bundled ones are {', '.join(bundled) or 'none'}, and a path must exist."
        )
    return path


def find_file(name: str) -> Path:
    """The file behind an hf:// address, which is downloaded if the cache lacks it, or a path, which may not exist."""
    return _download(name) if is_address(name) else Path(name)


def is_address(name: str) -> bool:
    """Whether a name is of a file on the Hugging Face hub."""
    return name.startswith("hf://")


def split_revision(address: str) -> tuple[str, str]:
    """An hf:// address without its revision, and "@revision"; "" without one."""
    location, at, revision = address.partition("@")
    return location, at + revision


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # no file can have such a name
        return False


def _download(address: str) -> Path:
    """Fetch hf://owner/repo/path/file@revision (main by default) through huggingface_hub and its cache."""
    location, revision = split_revision(address)
    owner, repo, file = (*location.removeprefix("hf://").split("/", 2), "", "")[:3]
    if not (owner and repo and file):
        raise CheckpointError(f"{address} is not of the form hf://owner/repo/path/file@revision.")
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise MissingDependencyError(f"{address} needs huggingface_hub: pip install huggingface_hub.") from None
    try:
        return Path(hf_hub_download(f"{owner}/{repo}", file, revision=revision.removeprefix("@") or "main"))
    except Exception as error:  # the hub's, its HTTP client's and the disk's errors have no common base
        raise CheckpointError(
            f"{address} could not be fetched ({type(error).__name__}: {reason(error)}); check the address and the "
            "connection, or give a file."
        ) from error
