"""An image upscaler as a teacher: the ground truth is then what it makes of the decoded small latents.

Where a photograph has detail that no small latent tells of, a network that learns it is torn between many answers, and
edges fray. An upscaler's answer follows from the small latent alone, so it can be learned (Hinton et al. 2015).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ...errors import CheckpointError, MissingDependencyError, reason
from ...imaging.resample import resize

# A small image (B,3,h,w) in [-1,1] and a size (height, width) -> the large image of that size, in [-1,1].
Teacher = Callable[[Tensor, tuple[int, int]], Tensor]


def load_teacher(path: Path, device: torch.device, dtype: torch.dtype = torch.float32) -> Teacher:
    """The upscaler of a file, of any architecture that spandrel knows; what it makes too large is reduced.

    Raises `MissingDependencyError` without spandrel, `CheckpointError` for a file of something else.
    """
    try:
        from spandrel import ImageModelDescriptor, ModelLoader
    except ImportError:
        raise MissingDependencyError("A teacher needs the package spandrel: pip install spandrel.") from None
    try:
        loaded = ModelLoader().load_from_file(path)
    except Exception as error:  # each architecture raises errors of its own
        raise CheckpointError(
            f"{path} is no upscaler that spandrel knows ({reason(error)}); name another file."
        ) from None
    if not isinstance(loaded, ImageModelDescriptor) or loaded.input_channels != 3 or loaded.output_channels != 3:
        raise CheckpointError(f"{path} does not make colour images of colour images; name the file of an upscaler.")
    upscaler = loaded.to(device, dtype).eval()
    upscaler.model.to(memory_format=torch.channels_last)  # in bfloat16 twice as fast on a CPU
    return as_teacher(upscaler, dtype)


def as_teacher(upscaler: Callable[[Tensor], Tensor], dtype: torch.dtype) -> Teacher:
    """A teacher of an upscaler of images in [0,1], which computes in dtype and makes images of its own size."""

    def taught(image: Tensor, size: tuple[int, int]) -> Tensor:
        large = upscaler((image.clamp(-1, 1) + 1).to(dtype) / 2).float()
        return resize(large * 2 - 1, size, "bicubic").clamp(-1, 1)

    return taught
