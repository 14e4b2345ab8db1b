"""The hosts, AUTOMATIC1111 and Forge: checkpoints, VAEs, noise, memory, progress, interrupts, images.

Both hosts share the package `modules`. Where they differ, Forge's own package `backend` is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from modules import devices, images, paths, processing, rng, sd_models, sd_samplers_common, shared
from PIL import Image
from torch import Tensor

from fmboost_core import Hooks, load_codec, load_model
from fmboost_core.codecs.protocol import Codec
from fmboost_core.codecs.tiny import TinyVAE
from fmboost_core.errors import LatentError, collected_warnings, is_out_of_memory
from fmboost_core.families import FAMILIES, LatentFamily, Party, family_of_space
from fmboost_core.model import Model
from fmboost_core.sampling.schedule import Noise
from fmboost_core.sampling.tiling import in_smaller_tiles
from fmboost_core.sampling.widgets import SharedBar

IS_FORGE = find_spec("modules_forge") is not None
UNIT = processing.opt_f  # pixels a latent, by which the hosts round and crop whatever the checkpoint


def models_folder() -> Path:
    """The folder of a user's own models."""
    return Path(paths.models_path) / "fmboost"


# --- the checkpoint and its VAE


def family_of(checkpoint: Any) -> str | None:
    """The latent family of a checkpoint; None for one of no known family.

    Forge's VAE tells its numbers, and Forge has no attribute for FLUX.1 and Chroma. AUTOMATIC1111 has attributes
    (`LatentFamily.webui`).
    """
    vae = getattr(getattr(checkpoint, "forge_objects", None), "vae", None)
    if vae is not None:
        network = vae.first_stage_model
        return family_of_space(vae.latent_channels, network.scaling_factor, network.shift_factor)
    families = (f.name for f in FAMILIES.values() if any(getattr(checkpoint, name, False) for name in f.webui))
    return next(families, None)


def party_of(checkpoint: Any) -> Party:
    """The checkpoint in `require_same_family`."""
    return Party("the checkpoint", family_of(checkpoint))


def loaded_party() -> Party | None:
    """The checkpoint in memory; None where there is none yet. `shared.sd_model` would load one."""
    checkpoint = sd_models.model_data.sd_model
    is_loaded = any(hasattr(checkpoint, name) for f in FAMILIES.values() for name in f.webui)
    return party_of(checkpoint) if is_loaded else None


def loaded_checkpoint() -> Any:
    """The chosen checkpoint. Forge loads it only when something is generated, but Extras may come first."""
    if IS_FORGE:
        sd_models.forge_model_reload()
    return shared.sd_model


def host_vae(checkpoint: Any) -> Codec:
    """The checkpoint's VAE as the core's `Codec`. Raises `LatentError` for a checkpoint of no known family."""
    family = family_of(checkpoint)
    if family is None:
        raise LatentError(
            "The latents of this checkpoint are of a family that FMBoost does not know; choose another checkpoint."
        )
    return (ForgeVAE if IS_FORGE else WebuiVAE)(checkpoint, FAMILIES[family])


class WebuiVAE:
    """AUTOMATIC1111's VAE as the core's `Codec`."""

    def __init__(self, checkpoint: Any, family: LatentFamily) -> None:
        self._checkpoint = checkpoint
        self.family, self.channels, self.downscale_factor = family.name, family.channels, family.downscale_factor

    def encode(self, images: Tensor) -> Tensor:
        return torch.cat([self._encode(image) for image in images.split(1)])

    def _encode(self, image: Tensor) -> Tensor:
        checkpoint = self._checkpoint
        checkpoint.first_stage_model.to(devices.dtype_vae)
        # The mean: a sample of the posterior comes from the global generator, and differs in a batch.
        pixels = image.to(devices.device, devices.dtype_vae)
        if checkpoint.is_sd3:
            return _sd3_mean(checkpoint, pixels).to(image)
        posterior = checkpoint.encode_first_stage(pixels)
        return checkpoint.get_first_stage_encoding(posterior.mode()).to(image)

    def decode(self, latents: Tensor) -> Tensor:
        return torch.cat([self._decode(latent) for latent in latents.split(1)])

    def _decode(self, latent: Tensor) -> Tensor:
        if shared.opts.sd_vae_decode_method == "Full":  # the host decodes again in float32 where half overflows
            (image,) = processing.decode_latent_batch(self._checkpoint, latent, check_for_nans=True)
            return image[None].to(latent)
        scaled = latent.to(devices.dtype_vae)
        return sd_samplers_common.samples_to_images_tensor(scaled, 0, self._checkpoint).to(latent)


def _sd3_mean(checkpoint: Any, image: Tensor) -> Tensor:
    """The scaled mean of SD3's posterior, of which AUTOMATIC1111 itself gives a sample only.

    The encoder is watched in the host's own call, which moves the VAE to the device where memory is short.
    """
    seen: list[Tensor] = []
    watch = checkpoint.first_stage_model.encoder.register_forward_hook(lambda _m, _i, output: seen.append(output))
    try:
        checkpoint.encode_first_stage(image)
    finally:
        watch.remove()
    mean, _ = seen[0].chunk(2, dim=1)
    return checkpoint.latent_format.process_in(mean)


class ForgeVAE:
    """Forge's VAE as the core's `Codec`. Forge itself decodes in tiles when memory runs out."""

    def __init__(self, checkpoint: Any, family: LatentFamily) -> None:
        self._vae = checkpoint.forge_objects.vae.clone()
        self._vae.patcher.set_model_vae_regulation(lambda posterior: posterior.mode())
        self.family, self.channels, self.downscale_factor = family.name, family.channels, family.downscale_factor

    def encode(self, images: Tensor) -> Tensor:
        raw = [self._vae.encode(image.movedim(1, -1) / 2 + 0.5) for image in images.split(1)]
        return self._vae.first_stage_model.process_in(torch.cat(raw)).to(images)

    def decode(self, latents: Tensor) -> Tensor:
        raw = self._vae.first_stage_model.process_out(latents)
        return torch.cat([self._vae.decode(latent) for latent in raw.split(1)]).movedim(-1, 1).to(latents) * 2 - 1


# --- the network and memory


@lru_cache(maxsize=1)
def _loaded(source: str, modified: float) -> Model:
    # Forge works in inference mode, and a tensor that is made there cannot be used outside of it.
    with torch.inference_mode(False):
        return load_model(source)


@lru_cache(maxsize=1)
def builtin_codec() -> TinyVAE:
    """The codec that comes with the package, which needs no checkpoint; it waits on the CPU."""
    with torch.inference_mode(False):
        return load_codec("builtin")


@contextmanager
def builtin_on_device() -> Iterator[Codec]:
    """The built-in codec on the device; afterwards it is on the CPU again."""
    codec = builtin_codec()
    try:
        yield codec.to(devices.device)
    finally:
        codec.to("cpu")


def load_network(source: str) -> Model:
    """A model by its bundled name or path, on the CPU; the last one is kept, unless its file has changed."""
    path = Path(source)
    return _loaded(source, path.stat().st_mtime if path.is_file() else 0.0)


@contextmanager
def on_device(model: Model, size: tuple[int, int]) -> Iterator[None]:
    """The network on the device, with room for an image of size (width, height); afterwards it is on the CPU again."""
    half = devices.device.type == "cuda" and devices.dtype == torch.float16
    dtype = torch.float16 if half else torch.float32
    positions = size[0] * size[1] // FAMILIES[model.spec.family].downscale_factor ** 2
    _make_room(model.working_memory(positions, dtype))
    try:
        model.to(devices.device, dtype)
        with devices.without_autocast():
            yield
    finally:
        model.to("cpu", torch.float32)
        devices.torch_gc()


def _make_room(needed: int) -> None:
    """Move other networks off the device: with --medvram all of them, in Forge until `needed` bytes are free."""
    if IS_FORGE:
        from backend import memory_management

        if devices.device.type != "cpu":
            memory_management.free_memory(needed, devices.device)
    else:
        from modules import lowvram

        checkpoint = sd_models.model_data.sd_model  # `shared.sd_model` would load one; Extras need none
        if checkpoint is not None and lowvram.is_enabled(checkpoint):
            lowvram.send_everything_to_cpu()
    devices.torch_gc()


def with_smaller_tiles(run: Callable[[int | str | None], Tensor], tile: int | str | None) -> Tensor:
    """run(tile), with smaller tiles where the device's memory runs out. tile: see `SamplingOptions`."""

    def before_retry(smaller: int) -> None:
        print(f"FMBoost: out of memory, going on with tiles of {smaller} latents")
        devices.torch_gc()

    return in_smaller_tiles(run, tile, is_out_of_memory, before_retry)


# --- images


def to_tensor(image: Image.Image, alpha: bool = False) -> Tensor:
    """An image of any mode as (1,3,H,W) in [-1,1], on the CPU; with alpha, (1,4,H,W) for one with transparency."""
    has_alpha = alpha and ("A" in image.getbands() or "transparency" in image.info)
    pixels = torch.from_numpy(np.array(image.convert("RGBA" if has_alpha else "RGB"), dtype=np.float32))
    return (pixels / 127.5 - 1).movedim(-1, 0)[None]


def to_image(pixels: Tensor) -> Image.Image:
    """The inverse of `to_tensor`, in 8 bits."""
    values = ((pixels[0].movedim(0, -1) + 1) * 127.5).round().clamp(0, 255)
    return Image.fromarray(values.to(torch.uint8).cpu().numpy())


# --- the job


@contextmanager
def warnings_shown(p: Any) -> Iterator[None]:
    """Show the core's warnings under the job's images."""
    with collected_warnings() as sentences:
        yield
    for sentence in sentences:
        p.comment(f"FMBoost: {sentence}")


def interrupted() -> bool:
    """Whether the user wants the job, or this image of it, to stop."""
    return bool(shared.state.interrupted or shared.state.skipped)


def item_noise(p: Any, item: int) -> Noise:
    """The host's noise of a batch item's seed and variation seed. Each call draws on."""
    generator: Any = None

    def noise(shape: tuple[int, ...]) -> Tensor:
        nonlocal generator
        if generator is None:
            generator = rng.ImageRNG(
                shape[1:], p.seeds[item : item + 1], subseeds=p.subseeds[item : item + 1],
                subseed_strength=p.subseed_strength, seed_resize_from_h=p.seed_resize_from_h,
                seed_resize_from_w=p.seed_resize_from_w,
            )  # fmt: skip
        generator.shape = shape[1:]
        return generator.next()

    return noise


class Progress:
    """The host's progress bars and live preview over several runs of the core in a row.

    steps: how many of the host's total of sampling steps the runs are, however many stages and tiles they have.
    """

    def __init__(self, runs: int = 1, steps: int = 0) -> None:
        self._bar, self._steps, self._counted = SharedBar(runs), steps, 0

    def next_run(self) -> None:
        self._bar.next_run()

    def hooks(self, bars: bool = True, preview: bool = True) -> Hooks:
        """Hooks that show the progress and stop with the host. bars, preview: whether each of them is shown."""
        return Hooks(
            progress=self._show if bars else None,
            cancelled=interrupted,
            on_state=(lambda t, state: sd_samplers_common.store_latent(state)) if preview else None,
        )

    def _show(self, done: int, total: int) -> None:
        state = shared.state
        state.sampling_step, state.sampling_steps = self._bar.place(done, total)
        reached = self._steps * state.sampling_step // state.sampling_steps
        for _ in range(reached - self._counted):
            shared.total_tqdm.update()
        self._counted = max(self._counted, reached)


def save_before_hires(p: Any, samples: Tensor, seeds: Any, prompts: Any) -> None:
    """Save the small images where the host's settings ask for it, as its own second pass does."""
    if not p.save_samples() or not shared.opts.save_images_before_highres_fix:
        return
    for index in range(samples.shape[0]):
        info = processing.create_infotext(
            p, p.all_prompts, p.all_seeds, p.all_subseeds, [], iteration=p.iteration, position_in_batch=index
        )
        images.save_image(
            sd_samplers_common.sample_to_image(samples, index, approximation=0), p.outpath_samples, "", seeds[index],
            prompts[index], shared.opts.samples_format, info=info, p=p, suffix="-before-highres-fix",
        )  # fmt: skip
