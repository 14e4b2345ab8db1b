"""Folders of a model as hubs expect them: its weights, config.json, and for `export` the card README.md."""

from __future__ import annotations

import json
import posixpath
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import FileError
from ..families import FAMILIES
from ..model import Model
from ..spec import ModelSpec
from .atomic import replacing
from .checkpoint import describe, read_spec, save_model
from .locate import BUNDLED_MODELS, CONFIG, WEIGHTS, find_weights

CARD = "README.md"
_CARDS = "fmboost_core/weights/cards"  # in the repository
_REPOSITORY = "https://github.com/fmboost/fmboost/blob/main"
_LICENSES = ("mit", "apache-2.0", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "openrail", "unknown")

_HOW_TO_LOAD = """\
From this repository, with [FMBoost](https://github.com/fmboost/fmboost) and
[diffusers](https://github.com/fmboost/fmboost/blob/main/docs/diffusers.md):

```python
from fmboost_core.hosts.diffusers import FMBoostUpscalePipeline

upscale = FMBoostUpscalePipeline.from_pretrained("hf://{repo}", vae=pipe.vae)  # pipe: of {title} latents
image = upscale(latents=latents).images[0]  # latents: what pipe gives with output_type="latent"
```

Packed latents, such as FLUX.1's, need `source_height` and `source_width` too. `load_model("hf://{repo}")` is the model
without diffusers.
"""


def save_folder(model: Model, folder: Path) -> None:
    """Write a model's weights, in the network's type, and its config.json. Raises what `save_model` raises."""
    save_model(model, folder / WEIGHTS)
    _write(folder / CONFIG, _config(model.spec))


def export(name_or_path: str | Path, folder: str | Path, repo: str | None = None) -> list[Path]:
    """Prepare a new folder that can be uploaded: the model's own file, config.json and a card. Returns their paths.

    repo: owner/name on the hub, for the card; None: your-name and the model's name. A bundled model has its own card;
    that of another file follows from its specification. Raises `CheckpointError` for what is no model of FMBoost, and
    `FileError` for a folder that is not empty.
    """
    source, folder = find_weights(name_or_path), Path(folder)
    spec = read_spec(source)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileError(f"{folder} is not an empty folder; name a new one.")
    facts = describe(source)
    place = repo or f"your-name/{spec.name}"
    with replacing(folder / WEIGHTS) as temporary:
        shutil.copyfile(source, temporary)
    _write(folder / CONFIG, _config(spec))
    own = BUNDLED_MODELS.parent / "cards" / f"{source.stem}.md" if source.parent == BUNDLED_MODELS else None
    text = _bundled_card(own, spec, place) if own is not None and own.is_file() else _new_card(spec, facts, place)
    _write(folder / CARD, text)
    return [folder / name for name in (WEIGHTS, CONFIG, CARD)]


def _config(spec: ModelSpec) -> str:
    """What hubs and diffusers read; FMBoost itself reads the specification in the weights' file."""
    return json.dumps({"_class_name": "FMBoostModel", **json.loads(spec.to_json())}, indent=2) + "\n"


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


# --- cards


def _bundled_card(path: Path, spec: ModelSpec, repo: str) -> str:
    """A card of the repository for another place: absolute links, the file's name there, how to load from there."""
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"\]\((?![a-z]+:|#)([^)#\s]*)", lambda m: f"]({_REPOSITORY}/{_from_root(m[1])}", text)
    text = text.replace(f"`models/{path.stem}.safetensors`", f"`{WEIGHTS}`")
    how = _HOW_TO_LOAD.format(repo=repo, title=FAMILIES[spec.family].title)
    return text.replace("## How to load\n", f"## How to load\n\n{how}\nFrom the package, which has it too:\n", 1)


def _from_root(link: str) -> str:
    """A link of a card as a path from the repository's root."""
    return posixpath.normpath(posixpath.join(_CARDS, link))


def _new_card(spec: ModelSpec, facts: dict[str, Any], repo: str) -> str:
    """A card of what the specification tells."""
    family = FAMILIES[spec.family]
    return "\n".join(
        (
            *_front_matter(spec),
            f"# {spec.name}\n",
            f"An upscaler for the latents of {family.title} by coupling flow matching: {spec.scale:g} times as wide "
            f"and high, in {spec.nfe} evaluations of a network of {facts['parameters'] / 1e6:.1f}M parameters "
            f"({facts['dtype']}, {facts['bytes'] / 1e6:.1f} MB). Its noise step is {spec.noise_step}.\n",
            f"## How to load\n\n{_HOW_TO_LOAD.format(repo=repo, title=family.title)}",
            f"## Training data\n\n{spec.trained_on}\n",
            f"## Checksum\n\nSHA-256 of `{WEIGHTS}`:\n\n    {facts['sha256']}\n",
        )
    )


def _front_matter(spec: ModelSpec) -> Iterator[str]:
    known = spec.license.lower() in _LICENSES
    yield "---"
    yield f"license: {spec.license.lower() if known else 'other'}"
    if not known:
        yield f"license_name: {json.dumps(spec.license)}"
    yield from ("library_name: fmboost", "pipeline_tag: image-to-image", "tags:")
    yield from (f"  - {tag}" for tag in ("latent-upscaler", "super-resolution", "flow-matching", spec.family))
    yield "---\n"
