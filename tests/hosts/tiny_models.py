"""Checkpoints of FLUX.1, SD3.5 and Z-Image with few layers and random weights, for the host tests.

`python tiny_models.py HOST MODELS` builds them from the classes of the ComfyUI in HOST, under the workflows' names in
the folders of MODELS. Of text encoders they have what the host knows them by; see `short_text_encoders`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

PREFIX = "model.diffusion_model."
CLIP_L, T5 = "text_encoders.clip_l.transformer.text_model.", "text_encoders.t5xxl.transformer.encoder."


def random(name: str, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Weights that neither explode nor vanish: a matrix keeps the size of what it multiplies."""
    if len(shape) < 2:
        return torch.zeros(shape, dtype=dtype) if name.endswith("bias") else torch.ones(shape, dtype=dtype)
    return torch.randn(shape, dtype=dtype) / shape[1:].numel() ** 0.5


def weights(network: nn.Module, prefix: str = "", dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    """Random weights for a network on the device "meta"."""
    return {prefix + name: random(name, value.shape, dtype) for name, value in network.state_dict().items()}


def vae(prefix: str) -> dict[str, Tensor]:
    """An autoencoder of the size and the layers of FLUX.1's and SD3's; the host fixes both."""
    from comfy.ldm.modules.diffusionmodules.model import Decoder, Encoder

    shape: dict[str, Any] = {
        "z_channels": 16, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch_mult": [1, 2, 4, 4],
        "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0,
    }  # fmt: skip
    encoder, decoder = Encoder(double_z=True, ch=128, **shape), Decoder(ch=128, **shape)
    return weights(encoder, f"{prefix}encoder.") | weights(decoder, f"{prefix}decoder.")


def flux(operations: Any) -> dict[str, Tensor]:
    from comfy.ldm.flux.model import Flux

    network = Flux(
        image_model="flux", in_channels=16, out_channels=16, vec_in_dim=768, context_in_dim=4096, hidden_size=128,
        mlp_ratio=4.0, num_heads=1, depth=1, depth_single_blocks=1, axes_dim=[16, 56, 56], theta=10000, patch_size=2,
        qkv_bias=True, guidance_embed=True, txt_ids_dims=[], dtype=torch.float16, device="meta", operations=operations,
    )  # fmt: skip
    text = {f"{CLIP_L}final_layer_norm.weight": torch.ones(768), f"{T5}final_layer_norm.weight": torch.ones(4096)}
    return weights(network, PREFIX) | vae("vae.") | text


def sd3(operations: Any) -> dict[str, Tensor]:
    from comfy.ldm.modules.diffusionmodules.mmdit import MMDiT

    network = MMDiT(
        input_size=None, patch_size=2, in_channels=16, out_channels=16, depth=2, num_patches=64 * 64,
        pos_embed_max_size=64, adm_in_channels=2048, qk_norm="rms", dtype=torch.float16, device="meta",
        context_embedder_config={"target": "torch.nn.Linear", "params": {"in_features": 4096, "out_features": 128}},
        operations=operations,
    )  # fmt: skip
    text = {f"{T5}final_layer_norm.weight": torch.ones(4096, dtype=torch.float16)}
    return weights(network, PREFIX) | vae("first_stage_model.") | text


def z_image(operations: Any) -> dict[str, Tensor]:
    """The host knows it by its width, so that a single layer of each kind is 2 GB."""
    from comfy.ldm.lumina.model import NextDiT

    network = NextDiT(
        patch_size=2, in_channels=16, dim=3840, n_layers=1, n_heads=30, n_kv_heads=30, axes_dims=[32, 48, 48],
        axes_lens=[1536, 512, 512], rope_theta=256.0, ffn_dim_multiplier=8 / 3, qk_norm=True, cap_feat_dim=2560,
        z_image_modulation=True, time_scale=1000.0, pad_tokens_multiple=32, dtype=torch.bfloat16, device="meta",
        operations=operations,
    )  # fmt: skip
    return weights(network, dtype=torch.bfloat16)


def qwen() -> dict[str, Tensor]:
    """Qwen3-4B by the two weights that the host looks for."""
    layer = "model.layers.0."
    return {
        f"{layer}post_attention_layernorm.weight": torch.ones(2560, dtype=torch.bfloat16),
        f"{layer}self_attn.q_norm.weight": torch.ones(128, dtype=torch.bfloat16),
    }


def save(found: Mapping[str, Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in found.items()}, path)
    print(f"{path.name}: {sum(value.numel() for value in found.values()) / 1e6:.0f}M")


def main() -> None:
    host, models = (Path(argument).resolve() for argument in sys.argv[1:3])
    wanted = sys.argv[3:]  # the files' names; all where there are none
    sys.argv = ["main.py", "--cpu"]
    sys.path.insert(0, str(host))
    import comfy.options  # before anything else of the host's, or it reads no options

    comfy.options.enable_args_parsing()
    import comfy.ops

    torch.manual_seed(0)
    operations = comfy.ops.disable_weight_init
    made = {
        "checkpoints/flux1-dev-fp8.safetensors": lambda: flux(operations),
        "checkpoints/sd3.5_large_fp8_scaled.safetensors": lambda: sd3(operations),
        "vae/ae.safetensors": lambda: vae(""),
        "diffusion_models/z_image_turbo_bf16.safetensors": lambda: z_image(operations),
        "text_encoders/qwen_3_4b.safetensors": qwen,
    }
    for name in wanted or made:
        save(made[name](), models / name)


if __name__ == "__main__":
    main()
