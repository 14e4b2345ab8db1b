"""Checkpoints of FLUX.1, Chroma and SD3 for AUTOMATIC1111 and Forge that hold only what a host knows a family by.

The extension `few_layers` completes them with random weights as they are loaded.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

Shapes = dict[str, tuple[int, ...]]

NETWORK = "model.diffusion_model."
CLIP_L, CLIP_G, T5 = (f"text_encoders.{name}." for name in ("clip_l", "clip_g", "t5xxl"))
NORM_OF_CLIP = "transformer.text_model.final_layer_norm.weight"
NORM_OF_T5 = "transformer.encoder.final_layer_norm.weight"
OF_FLUX: Shapes = {f"{NETWORK}double_blocks.0.img_attn.norm.key_norm.scale": (128,)}

# By the file's name: where its VAE is, which text encoders it has, and the weights that tell the family.
KINDS: dict[str, tuple[str, Shapes, Shapes]] = {
    "flux1": (
        "vae.",
        {CLIP_L + NORM_OF_CLIP: (768,), T5 + NORM_OF_T5: (4096,)},
        OF_FLUX | {f"{NETWORK}guidance_in.in_layer.weight": (128, 256)},
    ),
    "chroma": (
        "vae.",
        {T5 + NORM_OF_T5: (4096,)},
        OF_FLUX | {f"{NETWORK}distilled_guidance_layer.layers.0.in_layer.bias": (64,)},
    ),
    "sd3": (
        "first_stage_model.",
        {CLIP_L + NORM_OF_CLIP: (768,), CLIP_G + NORM_OF_CLIP: (1280,), T5 + NORM_OF_T5: (4096,)},
        {
            f"{NETWORK}x_embedder.proj.weight": (128, 16, 2, 2),  # a width of 128 is of two layers
            f"{NETWORK}y_embedder.mlp.0.weight": (128, 2048),
            f"{NETWORK}context_embedder.weight": (128, 4096),
            f"{NETWORK}pos_embed": (1, 64 * 64, 128),
            f"{NETWORK}joint_blocks.0.context_block.attn.qkv.weight": (3 * 128, 128),
            f"{NETWORK}final_layer.linear.weight": (2 * 2 * 16, 128),
        },
    ),
}
MARKS = 17  # Forge takes a part with 16 weights or fewer for a missing one


def write_checkpoint(folder: Path, kind: str) -> None:
    """Write `KIND.safetensors`. kind: a key of `KINDS`."""
    vae, encoders, weights = KINDS[kind]
    parts = [NETWORK, vae, *(name[: name.index("transformer.")] for name in encoders)]
    marks = {f"{part}few_layers.{i}": (1,) for part in parts for i in range(MARKS)}
    generator = torch.Generator().manual_seed(0)
    found = {
        name: torch.ones(shape) if len(shape) == 1 else torch.randn(shape, generator=generator) / shape[1] ** 0.5
        for name, shape in (weights | encoders | marks).items()
    }
    save_file(found, folder / f"{kind}.safetensors")
