"""Restore: the small picture's colours and shapes for the large one, after VAE Decode."""

from __future__ import annotations

import torch
from comfy_api.latest import io
from torch import Tensor

from ..fmboost_core.sampling.restore import restored
from ..fmboost_core.tiles import parse_tileable
from . import host, inputs
from .newer import schema


class Restore(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FMBoostRestore",
            display_name="FMBoost Restore",
            description="Gives a large picture the colours and shapes of the small one, which change a little in the "
            "latents. Its fine detail stays.",
            words=("colour match", "color match", "colour correction", "color correction"),
            inputs=[
                io.Image.Input("image", tooltip="The large picture, from VAE Decode."),
                io.Image.Input("small", tooltip="The small picture: another VAE Decode, of KSampler's latent."),
                inputs.tileable_input(),
            ],
            outputs=[io.Image.Output(display_name="large image")],
        )

    @classmethod
    def execute(cls, image: Tensor, small: Tensor, tileable: str = "off") -> io.NodeOutput:
        large, low = (pictures[..., :3].movedim(-1, 1) * 2 - 1 for pictures in (image, small))
        with host.noted() as notes:
            colours = restored(large, low, tileable=parse_tileable(tileable)).movedim(1, -1) / 2 + 0.5
        return io.NodeOutput(torch.cat([colours, image[..., 3:]], dim=-1), ui=host.shown(notes))
