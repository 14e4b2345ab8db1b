"""Pipelines of diffusers with few layers and random weights: SD1.5, SDXL and FLUX.1, and their VAEs."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import load_file
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from fmboost_core.families import FAMILIES

WIDTH = 32


def vae(family: str, **config: Any) -> AutoencoderKL:
    """A random AutoencoderKL with the family's channels, scaling factor and shift."""
    own, levels = FAMILIES[family], 4
    torch.manual_seed(1)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=(8,) * levels,
        layers_per_block=1,
        norm_num_groups=4,
        **{
            "latent_channels": own.channels,
            "scaling_factor": own.scaling_factor,
            "shift_factor": own.shift or None,
            **config,
        },
    ).eval()


def tiny_vae(prefix: Path) -> AutoencoderTiny:
    """A pair of public files NAME_encoder.safetensors and NAME_decoder.safetensors as diffusers has it."""
    encoder, decoder = (load_file(f"{prefix}_{part}.safetensors") for part in ("encoder", "decoder"))
    network = AutoencoderTiny(latent_channels=decoder["1.weight"].shape[1])
    weights = {f"encoder.layers.{name}": tensor for name, tensor in encoder.items()}
    for name, tensor in decoder.items():  # the clamp is a layer there, and none here
        number, rest = name.split(".", 1)
        weights[f"decoder.layers.{int(number) - 1}.{rest}"] = tensor
    network.load_state_dict(weights)
    network.register_to_config(_name_or_path=f"madebyollin/{prefix.name}")
    return network.eval()


def sd15() -> StableDiffusionPipeline:
    torch.manual_seed(2)
    return StableDiffusionPipeline(
        vae=vae("sd15"), unet=_unet(), scheduler=_scheduler(), text_encoder=CLIPTextModel(_clip()),
        tokenizer=_tokenizer(), safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def sdxl() -> StableDiffusionXLPipeline:
    torch.manual_seed(3)
    unet = _unet(
        addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + WIDTH, cross_attention_dim=2 * WIDTH,
    )  # fmt: skip
    return StableDiffusionXLPipeline(
        vae=vae("sdxl"), unet=unet, scheduler=_scheduler(), text_encoder=CLIPTextModel(_clip()),
        text_encoder_2=CLIPTextModelWithProjection(_clip()), tokenizer=_tokenizer(), tokenizer_2=_tokenizer(),
    )  # fmt: skip


def flux() -> FluxPipeline:
    torch.manual_seed(4)
    transformer = FluxTransformer2DModel(
        patch_size=1, in_channels=64, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=WIDTH, pooled_projection_dim=WIDTH, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    t5 = T5Config(vocab_size=128, d_model=WIDTH, d_kv=8, d_ff=WIDTH, num_layers=1, num_heads=4)
    return FluxPipeline(
        vae=vae("flux1"), transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(),
        text_encoder=CLIPTextModel(_clip()), text_encoder_2=T5EncoderModel(t5), tokenizer=_tokenizer(),
        tokenizer_2=T5TokenizerFast(),
    )  # fmt: skip


def _unet(**config: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4, attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        **{"cross_attention_dim": WIDTH, **config},
    )  # fmt: skip


def _scheduler() -> DDIMScheduler:
    """Its predictions of velocity keep the latents near unit variance, though the network's weights are random."""
    return DDIMScheduler(prediction_type="v_prediction", clip_sample=False, steps_offset=1)


def _clip() -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=16, hidden_size=WIDTH, intermediate_size=WIDTH, num_hidden_layers=2, num_attention_heads=4,
        projection_dim=WIDTH, eos_token_id=1, bos_token_id=0, pad_token_id=2,
    )  # fmt: skip


def _tokenizer() -> CLIPTokenizer:
    """All words are unknown to it."""
    return CLIPTokenizer(model_max_length=77)
