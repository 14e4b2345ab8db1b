"""Files of upscale models, such as Real-ESRGAN's, which the package spandrel reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError, MissingDependencyError, reason
from ..tiles import grid, map_tiles

TILE, OVERLAP = 256, 32  # pixels of the small image


@dataclass(frozen=True)
class LoadedUpscaleModel:
    """An upscale model of a file as an `UpscaleModel`: in tiles, on its device and in its number type.

    name: the file's, without its suffix. network: images (B,3,h,w) in [0,1] -> (B,3,kh,kw). factor: k.
    progress: called with (done, total) after each tile.
    """

    name: str
    network: Callable[[Tensor], Tensor]
    factor: int
    device: torch.device
    dtype: torch.dtype
    progress: Callable[[int, int], None] | None = None

    def watched(self, progress: Callable[[int, int], None]) -> LoadedUpscaleModel:
        """The same model, which tells its progress."""
        return replace(self, progress=progress)

    @torch.no_grad()
    def __call__(self, image: Tensor) -> Tensor:
        total, done = len(list(grid(image.shape[-2], image.shape[-1], TILE, OVERLAP))), 0

        def one(tile: Tensor) -> Tensor:
            nonlocal done
            large = self.network(tile.to(self.device, self.dtype)).to(image)
            done += 1
            if self.progress is not None:
                self.progress(done, total)
            return large

        return map_tiles(one, [image], TILE, OVERLAP, out_unit=self.factor)


def load_upscale_model(
    path: Path | str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> LoadedUpscaleModel:
    """The upscale model of a file (.pth, .safetensors), of any architecture that spandrel knows.

    Raises `MissingDependencyError` without spandrel, `CheckpointError` without the file and for one of something else.
    """
    try:
        from spandrel import ImageModelDescriptor, ModelLoader
    except ImportError:
        raise MissingDependencyError("Upscale models need the package spandrel: pip install spandrel.") from None
    if not Path(path).is_file():
        raise CheckpointError(f"There is no file {path}; check the name.")
    try:
        loaded: Any = ModelLoader().load_from_file(path)
    except Exception as error:  # each architecture raises errors of its own
        raise CheckpointError(
            f"{path} is no upscale model that spandrel knows ({reason(error)}); name another file."
        ) from None
    if not isinstance(loaded, ImageModelDescriptor) or loaded.input_channels != 3 or loaded.output_channels != 3:
        raise CheckpointError(f"{path} does not make colour images of colour images; name an upscale model's file.")
    supported = {torch.float16: loaded.supports_half, torch.bfloat16: loaded.supports_bfloat16}
    device, dtype = torch.device(device), dtype if supported.get(dtype, True) else torch.float32
    network = loaded.to(device, dtype).eval()
    network.model.to(memory_format=torch.channels_last)  # in bfloat16 twice as fast on a CPU
    return LoadedUpscaleModel(Path(path).stem, network, loaded.scale, device, dtype)
