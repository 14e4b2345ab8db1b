"""Files of upscale models: compact and RRDB networks, such as the bundled ones, and what the package spandrel reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError, MissingDependencyError, reason
from ..fallback import move, with_fallback
from ..families import listed
from ..networks.compact import CompactNetwork
from ..networks.mean import MeanNetwork
from ..sampling.options import BEHIND_BUNDLED, BEHIND_OTHERS, Behind
from ..tiles import grid, map_tiles
from .locate import (
    BUNDLED_UPSCALE_MODELS,
    IMAGE_UPSCALE_MODEL,
    LATENT_UPSCALE_MODEL,
    MEAN_UPSCALE_MODEL,
    bundled_upscale_models,
    upscale_model_names,
)
from .upscale_network import UpscaleNetwork, is_known, load_upscale_network
from .weight_file import sha256_of

BUILTIN = "builtin"
TILE, OVERLAP = 256, 36  # pixels of the small image; compact networks look 34 pixels far
STRIDE = 8  # where tiles start: some networks take squares of pixels as one, others look through windows of 8
# By upscale factor. RRDB networks look farther than any overlap; for 2x, what is beyond made 3 of 255 in a photograph.
RRDB_TILES = {2: (512, 96), 4: (256, 48)}


@dataclass(frozen=True)
class LoadedUpscaleModel:
    """An upscale model of a file as an `UpscaleModel`: in tiles, on its device and in its number type.

    name: the file's, without its suffix. network: images (B,3,h,w) in [0,1] -> (B,3,kh,kw). factor: k.
    progress: called with (done, total) after each tile. behind: what the flow does behind it.
    tile, overlap: pixels of the small image.
    """

    name: str
    network: Callable[[Tensor], Tensor]
    factor: int
    device: torch.device
    dtype: torch.dtype
    progress: Callable[[int, int], None] | None = None
    behind: Behind = BEHIND_OTHERS
    tile: int = TILE
    overlap: int = OVERLAP

    def in_tiles(self, tile: int) -> LoadedUpscaleModel:
        """The same model with tiles of another side, which overlap less where they are small."""
        return replace(self, tile=tile, overlap=min(self.overlap, tile // 2))

    def watched(self, progress: Callable[[int, int], None]) -> LoadedUpscaleModel:
        """The same model, which tells its progress."""
        return replace(self, progress=progress)

    @torch.no_grad()
    def __call__(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        total, done = len(list(grid(height, width, self.tile, self.overlap, stride=STRIDE))), 0

        def one(tile: Tensor) -> Tensor:
            nonlocal done
            large = self.network(tile.to(self.device, self.dtype)).to(image).clamp(0, 1)
            done += 1
            if self.progress is not None:
                self.progress(done, total)
            return large

        return map_tiles(one, [image], self.tile, self.overlap, stride=STRIDE, out_unit=self.factor)


def load_upscale_model(
    path: Path | str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> LoadedUpscaleModel:
    """The upscale model of a file (.pth, .safetensors), of Real-ESRGAN's kinds or any other that spandrel knows.

    path: or the name of a bundled one; "builtin" is `IMAGE_UPSCALE_MODEL`. Raises `MissingDependencyError` for other
    architectures without spandrel, `CheckpointError` without the file and for one of something else.
    """
    device, is_bundled = torch.device(device), str(path) in upscale_model_names()
    if not is_bundled:
        found = find_upscale_model(path)
        is_bundled = found.parent == BUNDLED_UPSCALE_MODELS
        if not is_known(found):
            return _by_spandrel(found, device, dtype)
    network = move(load_network(path), device, dtype)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    apply = partial(with_fallback, "enlarging by the upscale model", network, module=network)
    behind, name = BEHIND_BUNDLED if is_bundled else BEHIND_OTHERS, identity(path)[0]
    kind = next(network.parameters()).dtype
    return LoadedUpscaleModel(name, apply, network.factor, device, kind, None, behind, *tiles_of(network))


def load_network(name: Path | str) -> UpscaleNetwork | MeanNetwork:
    """The network of a bundled upscale model, or of a file of a known kind, on the CPU, in float32."""
    if str(name) != MEAN_UPSCALE_MODEL:
        return load_upscale_network(find_upscale_model(name))
    parts = (LATENT_UPSCALE_MODEL, IMAGE_UPSCALE_MODEL)
    return MeanNetwork([load_upscale_network(find_upscale_model(part)) for part in parts])


def identity(name: Path | str) -> tuple[str, str]:
    """The name of an upscale model and the SHA-256 of its file; of the mean that of both files' own, which tells it."""
    if str(name) != MEAN_UPSCALE_MODEL:
        path = find_upscale_model(name)
        return path.stem, sha256_of(path)
    parts = [identity(part)[1] for part in (LATENT_UPSCALE_MODEL, IMAGE_UPSCALE_MODEL)]
    return MEAN_UPSCALE_MODEL, sha256("".join(parts).encode()).hexdigest()


def tiles_of(network: UpscaleNetwork | MeanNetwork) -> tuple[int, int]:
    """Side and overlap of a network's tiles, in pixels of the small image."""
    return (TILE, OVERLAP) if isinstance(network, CompactNetwork) else RRDB_TILES[network.factor]


def find_upscale_model(name: Path | str) -> Path:
    """The file behind a path, the bundled name of a file or "builtin". Raises `CheckpointError` where there is none."""
    bundled = IMAGE_UPSCALE_MODEL if str(name) == BUILTIN else str(name)
    if bundled == MEAN_UPSCALE_MODEL:
        raise CheckpointError(
            f"{bundled} is no file, but the mean of {listed(bundled_upscale_models())}; name one of these here."
        )
    if bundled in bundled_upscale_models():
        return BUNDLED_UPSCALE_MODELS / f"{bundled}.safetensors"
    path = Path(name)
    if not path.is_file():
        raise CheckpointError(
            f"There is no upscale model {path}; give a file, or the name of a bundled one, "
            f"{listed(upscale_model_names(), 'or')}."
        )
    return path


def _by_spandrel(path: Path, device: torch.device, dtype: torch.dtype) -> LoadedUpscaleModel:
    try:
        from spandrel import ImageModelDescriptor, ModelLoader
    except ImportError:
        raise MissingDependencyError(
            f"The upscale model {path.name} needs the package spandrel: pip install spandrel."
        ) from None
    try:
        loaded: Any = ModelLoader().load_from_file(path)
    except Exception as error:  # each architecture raises errors of its own
        raise CheckpointError(
            f"{path} is no upscale model that spandrel knows ({reason(error)}); name another file."
        ) from None
    if not isinstance(loaded, ImageModelDescriptor) or loaded.input_channels != 3 or loaded.output_channels != 3:
        raise CheckpointError(f"{path} does not make colour images of colour images; name an upscale model's file.")
    supported = {torch.float16: loaded.supports_half, torch.bfloat16: loaded.supports_bfloat16}
    dtype = dtype if supported.get(dtype, True) else torch.float32
    network = loaded.to(device, dtype).eval()
    network.model.to(memory_format=torch.channels_last)  # in bfloat16 twice as fast on a CPU
    return LoadedUpscaleModel(path.stem, network, loaded.scale, device, dtype)
