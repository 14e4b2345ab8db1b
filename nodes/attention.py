"""Attention Scale: a diffusion model at another size than in training (paper appendix A.4.1)."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..fmboost_core import attention_scale
from ..fmboost_core.errors import ConfigError
from . import host
from .newer import schema


class AttentionScale(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FMBoostAttentionScale",
            display_name="FMBoost Attention Scale",
            description="Scales self-attention by the number of tokens. A model then loses less quality at smaller or "
            "larger sizes than in training. For U-Nets: SD1.5, SD2 and SDXL. (The paper also fine-tuned the model.)",
            words=("attention scaling", "low resolution"),
            inputs=[
                io.Model.Input("model"),
                io.Int.Input(
                    "trained_size",
                    default=512,
                    min=64,
                    max=4096,
                    step=64,
                    tooltip="Side in pixels of the model's training pictures: 512 for SD1.5, 1024 for SDXL.",
                ),
            ],
            outputs=[io.Model.Output(display_name="patched model")],
        )

    @classmethod
    def execute(cls, model: Any, trained_size: int) -> io.NodeOutput:
        if not host.has_unet_attention(model):
            raise ConfigError(
                "FMBoost Attention Scale patches the U-Nets of SD1.5, SD2 and SDXL, but this model is another kind of "
                f"network, {type(model.get_model_object('diffusion_model')).__name__}; remove or bypass the node."
            )
        patched = model.clone()
        patched.set_model_attn1_patch(ScaledQueries((trained_size // 8) ** 2))
        return io.NodeOutput(patched)


class ScaledQueries:
    """A patch of self-attention (attn1) that scales q, so that q·k/sqrt(d) becomes q·k sqrt(log_T N / d).

    Each level of the U-Net has its own N and T: those of the latent, divided by the square of the level's stride.
    """

    def __init__(self, trained_latents: int) -> None:
        self.trained_latents = trained_latents

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        return q * self.factor(q.shape[1], *extra["original_shape"][-2:]), k, v

    def factor(self, tokens: int, height: int, width: int) -> float:
        """The scale over the usual one, of a level with so many tokens of a latent (height, width)."""
        trained = max(2, round(self.trained_latents * tokens / (height * width)))
        return attention_scale(tokens, trained, 1)
