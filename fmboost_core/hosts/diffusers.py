"""FMBoost as a pipeline of diffusers, and its network as a model of diffusers.

    from fmboost_core.hosts.diffusers import FMBoostUpscalePipeline

    upscale = FMBoostUpscalePipeline.from_pretrained("sdxl-x2", vae=pipe.vae)
    image = upscale(latents=pipe("a cup", output_type="latent").images).images[0]

docs/diffusers.md has whole programs.
"""

# Annotations stay objects here (no `from __future__ import annotations`): diffusers reads those of `__init__`.
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, ConfigMixin, DiffusionPipeline, ImagePipelineOutput, ModelMixin
from diffusers.image_processor import VaeImageProcessor
from torch import Tensor

from ..codecs.autoencoder import DiffusersCodec
from ..codecs.load import BUILTIN, load_codec
from ..codecs.periodic import periodic
from ..codecs.protocol import Codec
from ..codecs.tiny import TinyVAE
from ..errors import ConfigError, LatentError, is_count, require
from ..files.checkpoint import load_model
from ..files.folder import save_folder
from ..files.locate import IMAGE_UPSCALE_MODEL, latent_upscale_model
from ..files.upscale_model import LoadedUpscaleModel, load_upscale_model
from ..imaging.resample import pad_to
from ..model import Model
from ..networks.conditioning import Conditioning
from ..networks.guide import GuideNetwork
from ..sampling.checks import check_pair, require_latent
from ..sampling.hooks import Hooks
from ..sampling.keywords import grouped
from ..sampling.options import SamplingOptions
from ..sampling.schedule import Noise, Seed, seeded_noise
from ..sampling.target import Target
from ..sampling.upscale_model import UpscaleModel
from ..sampling.upscaler import Upscaler
from .latents import unpacked

OUTPUT_TYPES = ("pil", "np", "pt", "latent")
AUTOMATIC = "auto"  # the upscale model: the bundled one that fits
INDEX = "model_index.json"  # in a folder of `DiffusionPipeline.save_pretrained`


class FMBoostModel(ModelMixin, ConfigMixin):
    """A velocity network with its specification as a model of diffusers; `config` holds the specification's fields."""

    config_name = "config.json"

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.register_to_config(**json.loads(model.spec.to_json()))
        self.spec, self.unet = model.spec, model.network  # `network` is a field of the configuration
        # In a tuple, so that it is no submodule: offloading moves those at `forward`, and guides come before.
        self._guide = (model.guide,)

    def forward(self, x: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """The velocity (B,C,h,w): x (B,C,h,w) scaled, t (B,) in [0,1]."""
        velocity: Tensor = self.unet(x, t, conditioning)
        return velocity

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        torch_dtype: torch.dtype | None = None,
        dtype: torch.dtype | None = None,
        **_: Any,
    ) -> "FMBoostModel":
        """Whatever `load_model` takes: a bundled name, a file, a folder or hf://owner/repo, in float32 unless told.

        The file's own specification counts, not the folder's config.json. Other arguments of diffusers have no effect.
        """
        return cls(load_model(pretrained_model_name_or_path).to(dtype=dtype or torch_dtype))

    def save_pretrained(self, save_directory: str | Path, **_: Any) -> None:
        """Write config.json and a model file of FMBoost, in the network's type. Other arguments have no effect."""
        save_folder(Model(self.spec, self.unet, self.guide_network), Path(save_directory))

    @property
    def guide_network(self) -> GuideNetwork | None:
        """The guide network of a model with fast guides."""
        return self._guide[0]


class FMBoostUpscalePipeline(DiffusionPipeline):
    """Upscales the small latents of another pipeline, or finished images.

    model: an `FMBoostModel`. vae: of the pipeline that made the latents; its type, device, tiling and slicing stay as
    they are. None: the built-in codec of the model's family, which smooths. Raises `LatentError` where the two are of
    different latent families.
    """

    model_cpu_offload_seq = "vae->model"
    _optional_components = ["vae"]  # noqa: RUF012 - as diffusers has it
    _callback_tensor_inputs = ["latents"]  # noqa: RUF012

    def __init__(self, model: FMBoostModel, vae: AutoencoderKL | AutoencoderTiny | None = None) -> None:
        super().__init__()
        self.register_modules(model=model, vae=vae)
        self.image_processor = VaeImageProcessor(do_resize=False)
        self._interrupt = False
        self._builtin: TinyVAE | None = None
        check_pair(self.core, self._codec())

    @property
    def core(self) -> Model:
        """The core's model, whose evaluations go through the pipeline's module and its hooks."""
        guide = self.model.guide_network
        return Model(self.model.spec, self.model, guide and guide.to(self._execution_device, self.model.dtype))

    @property
    def interrupt(self) -> bool:
        """Whether a call that runs is to stop; set `_interrupt`, from a callback or another thread."""
        return self._interrupt

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        vae: AutoencoderKL | AutoencoderTiny | None = None,
        torch_dtype: torch.dtype | None = None,
        dtype: torch.dtype | None = None,
        **others: Any,
    ) -> "FMBoostUpscalePipeline":
        """A pipeline of a model: whatever `load_model` takes, or a folder that `save_pretrained` wrote.

        vae: see the class; it stays in its own type. torch_dtype, dtype: of the model, and of a saved VAE; float32 by
        default. others: arguments of diffusers, for a saved folder alone.
        """
        place = str(pretrained_model_name_or_path)
        if Path(place, INDEX).is_file():
            kept = {"torch_dtype": torch_dtype, "dtype": dtype, "vae": vae}
            others |= {name: value for name, value in kept.items() if value is not None}
            saved: FMBoostUpscalePipeline = super().from_pretrained(place, **others)
            return saved
        if others:
            raise ConfigError(f"{next(iter(others))} has no effect on a model of FMBoost; leave it out.")
        return cls(FMBoostModel.from_pretrained(place, torch_dtype, dtype), vae)

    @torch.no_grad()
    def __call__(
        self,
        image: Any = None,
        latents: Tensor | None = None,
        scale: float | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        noise_step: int | None = None,
        generator: Seed | None = None,
        num_images_per_input: int = 1,
        source_height: int | None = None,
        source_width: int | None = None,
        restore: bool = True,
        upscale_model: UpscaleModel | str | None = AUTOMATIC,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[[Any, int, float, dict[str, Any]], dict[str, Any] | None] | None = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
        **keywords: Any,
    ) -> Any:
        """Upscale images or latents; returns `ImagePipelineOutput`, or a tuple without `return_dict`.

        image: what diffusers takes: PIL images of one size, arrays (B,H,W,3) or tensors (B,3,H,W) in [0,1]. The
            transparency of PIL images is kept, except in latents.
        latents: instead, scaled latents (B,C,h,w) as a pipeline gives them with output_type="latent", or packed ones
            (B,N,4C) of FLUX.1, with source_height and source_width: the small image's size in pixels.
        scale: upscale factor; or height and width in pixels. By default the model's scale.
        num_inference_steps: number of function evaluations in each stage; None: the model's own.
        noise_step: of the start, 0 to 999; None: the model's own.
        generator: a generator, from which the items draw in order, or a list with one for each result. A number seeds
            item i with generator + i. None: PyTorch's global generator.
        num_images_per_input: results for each image or latent, in a row. They are equal where no noise takes part: in
            images of a bundled upscale model, and with models of noise step 0.
        restore: whether the decoded result gets the small image's content back.
        upscale_model: enlarges images in the place of interpolation, in [0,1]; `load_upscale_model` reads one. "auto":
            a bundled one, where guides are made in pixel space. None: none.
        output_type: "pil", "np", "pt" or "latent"; latents are scaled, (B,C,H,W).
        callback_on_step_end: called as callback(pipe, step, t, {"latents": state}) after each step, step counted over
            all stages, t in [0,1] the time that is reached, state (B,C,h,w). Latents in the dict that it returns
            replace the state. Adaptive solvers do not call it.
        keywords: further ones of `boost`: megapixels, stretch, solver, tolerance, strength, upsample, tile, overlap,
            tileable.

        Raises `Cancelled` after `_interrupt` was set, and what `boost` raises.
        """
        if output_type not in OUTPUT_TYPES:
            raise ConfigError(f"output_type must be one of {', '.join(OUTPUT_TYPES)}, but it is {output_type!r}.")
        require(is_count(num_images_per_input), "num_images_per_input", num_images_per_input, "a whole number above 0")
        method = dict(
            scale=scale, size=_size(height, width), nfe=num_inference_steps, noise_step=noise_step, **keywords
        )
        target, options = grouped(method, Target, SamplingOptions)
        inputs = getattr(callback_on_step_end, "tensor_inputs", callback_on_step_end_tensor_inputs)
        small = self._small(image, latents, source_height, source_width).to(self._execution_device)
        noise = _noise(generator, small.shape[0] * num_images_per_input)
        make = self._from_image if latents is None else self._from_latents
        self._interrupt = False
        try:
            with self._hooks(callback_on_step_end, inputs) as hooks:
                enlarger = self._watched(self._enlarger(upscale_model, options, latents is None), hooks)
                upscaler = Upscaler(self.core, self._codec(), options, hooks, enlarger)
                makes_latents = latents is not None and output_type == "latent"
                equal = callback_on_step_end is None and _are_equal(upscaler, restore, makes_latents)
                if not equal:
                    small = small.repeat_interleave(num_images_per_input, dim=0)
                made = make(upscaler, small, target, noise, restore, output_type)
                if equal:  # made once
                    made = made.repeat_interleave(num_images_per_input, dim=0)
        finally:
            self.maybe_free_model_hooks()
        if output_type != "latent":
            made = self.image_processor.postprocess(made, output_type=output_type)
        return ImagePipelineOutput(images=made) if return_dict else (made,)

    def _codec(self) -> Codec:
        """The pipeline's VAE as a codec, or the built-in one beside the model."""
        if self.vae is not None:
            return DiffusersCodec(self.vae)
        family = self.model.spec.family
        if self._builtin is None or self._builtin.family != family:
            self._builtin = load_codec(BUILTIN, family)
        return self._builtin.to(self._execution_device, self.model.dtype)

    def _enlarger(
        self, asked: UpscaleModel | str | None, options: SamplingOptions, of_images: bool
    ) -> UpscaleModel | None:
        """The upscale model of a call; of_images: whether finished images are enlarged, and not latents."""
        if not isinstance(asked, str):
            return asked
        if asked != AUTOMATIC:
            raise ConfigError(
                f"upscale_model must be {AUTOMATIC!r}, None or an upscale model, but it is {asked!r}; "
                "load_upscale_model loads one by its name."
            )
        if (options.upsample or self.model.spec.guide) != "psu":
            return None
        # For each call, so that it is on the device only while it works.
        name = IMAGE_UPSCALE_MODEL if of_images else latent_upscale_model(self.model.spec.family)
        return load_upscale_model(name, self._execution_device, self.model.dtype)

    def _watched(self, upscale_model: UpscaleModel | None, hooks: Hooks) -> UpscaleModel | None:
        """An upscale model whose tiles the progress bar counts, and that stops between them, where it tells of them."""

        def on_tile(done: int, total: int) -> None:
            hooks.check_cancelled()
            if hooks.progress is not None:
                hooks.progress(done, total)

        return upscale_model.watched(on_tile) if isinstance(upscale_model, LoadedUpscaleModel) else upscale_model

    def _small(self, image: Any, latents: Tensor | None, height: int | None, width: int | None) -> Tensor:
        """The small images (B,3,h,w) in [-1,1] or latents (B,C,h,w) of the arguments of a call."""
        if (image is None) == (latents is None):
            raise ConfigError("Give either image or latents.")
        if latents is not None:
            small = unpacked(latents, self.core, height, width)
            require_latent(small, self.core)
            return small
        images = image if isinstance(image, (list, tuple)) else [image]
        if not images:
            raise LatentError("There is no image; give at least one.")
        sizes = {item.size if hasattr(item, "convert") else getattr(item, "shape", None) for item in images}
        if len(sizes) > 1:
            found = " and ".join("x".join(map(str, size)) for size in sizes if size is not None)
            raise LatentError(f"All images of a call must have one size, but these have {found}; call once for each.")
        drawn = hasattr(images[0], "convert")
        pixels: Tensor = self.image_processor.preprocess(_with_alike_modes(images) if drawn else image)
        if pixels.shape[1] != 3 and not (drawn and pixels.shape[1] == 4):
            raise LatentError(f"An image has 3 channels, but this one has {pixels.shape[1]}; give latents as latents.")
        if pixels.numel() and float(pixels.max()) > 1.01:
            raise LatentError(f"Arrays and tensors of images are in [0,1], but one has {pixels.max() / 2 + 0.5:g}.")
        return pixels.float()

    def _from_image(
        self, upscaler: Upscaler, small: Tensor, target: Target, noise: Noise, restore: bool, output_type: str
    ) -> Tensor:
        large = upscaler.image(small, target, noise, restore)
        if output_type != "latent":
            return large
        codec = periodic(self._codec(), upscaler.options.tileable)
        return codec.encode(pad_to(large[:, :3], codec.downscale_factor)).to(self.model.dtype)

    def _from_latents(
        self, upscaler: Upscaler, small: Tensor, target: Target, noise: Noise, restore: bool, output_type: str
    ) -> Tensor:
        if output_type == "latent":
            return upscaler.latent(small, target, noise)
        return upscaler.image_of_latent(small, target, noise, restore=restore)

    @contextmanager
    def _hooks(self, callback: Any, inputs: list[str] | None) -> Iterator[Hooks]:
        """The core's hooks behind diffusers' progress bar, callback and interruption."""
        unknown = sorted(set(inputs or ()) - set(self._callback_tensor_inputs))
        if unknown:
            raise ConfigError(
                f"callback_on_step_end_tensor_inputs may hold {', '.join(self._callback_tensor_inputs)}, but it holds "
                f"{', '.join(unknown)}."
            )
        wanted, step = self._callback_tensor_inputs if inputs is None else inputs, 0

        def progress(done: int, total: int) -> None:
            bar.total = total or None
            bar.update(done - bar.n)

        def on_state(t: float, state: Tensor) -> None:
            nonlocal step
            returned = callback(self, step, t, {"latents": state} if wanted else {}) or {}
            step += 1
            changed = returned.get("latents", state)
            if changed is not state:
                if changed.shape != state.shape:
                    raise LatentError(f"The callback's latents are {tuple(changed.shape)}, not {tuple(state.shape)}.")
                state.copy_(changed)

        with self.progress_bar(total=0) as bar:
            yield Hooks(progress, lambda: self._interrupt, None if callback is None else on_state)


def _size(height: int | None, width: int | None) -> tuple[int, int] | None:
    if (height is None) != (width is None):
        raise ConfigError("Give both height and width, or a scale.")
    return None if height is None or width is None else (width, height)


def _with_alike_modes(images: Sequence[Any]) -> list[Any]:
    """PIL images as RGBA where one of them has transparency, otherwise as RGB."""
    if not any(image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info for image in images):
        return [image.convert("RGB") for image in images]
    coloured = [image.convert("RGBA") for image in images]
    if all(image.getchannel("A").getextrema()[0] == 255 for image in coloured):  # as in many screenshots
        return [image.convert("RGB") for image in images]
    return coloured


def _are_equal(upscaler: Upscaler, restore: bool, makes_latents: bool) -> bool:
    """Whether all results of one input are equal, as no noise takes part in them."""
    by_upscale_model = upscaler.upscale_model is not None and not upscaler.options.takes_flow(restore)
    return upscaler.options.alpha_bar == 1 or (by_upscale_model and not makes_latents)


def _noise(generator: Seed | None, batch: int) -> Noise:
    return torch.randn if generator is None else seeded_noise(generator, batch)
