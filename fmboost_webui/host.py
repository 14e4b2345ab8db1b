"""The only bridge to AUTOMATIC1111 and Forge: files, family, the VAE, noise, memory, progress, interrupts, pictures.

Both share the package `modules`; where they differ, Forge's own package `backend` is asked.
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

from fmboost_core import load_codec, load_model
from fmboost_core.codecs.protocol import Codec
from fmboost_core.codecs.tiny import TinyVAE
from fmboost_core.errors import ConfigError, collected_warnings, is_out_of_memory
from fmboost_core.model import Model
from fmboost_core.sampling.schedule import Noise
from fmboost_core.sampling.tiling import in_smaller_tiles, parse_tile

IS_FORGE = find_spec("modules_forge") is not None
FACTOR = 8  # pixels a latent


def models_folder() -> Path:
    return Path(paths.models_path) / "fmboost"


# --- the checkpoint and its VAE


def family_of(model: Any) -> str:
    """The family of a checkpoint's latents. Raises `ConfigError` where there can be no model of ours for it."""
    if getattr(model, "is_sd1", False) or getattr(model, "is_sd2", False):
        return "sd15"  # SD2.x has SD1.5's VAE
    if getattr(model, "is_sdxl", False):
        return "sdxl"
    raise ConfigError(
        "FMBoost enlarges latents of SD1.x, SD2.x and SDXL checkpoints, but this one is of another family; choose "
        "another upscaler."
    )


def loaded_family() -> str | None:
    """That of the checkpoint in memory, which is not loaded for the question; None where there is none yet."""
    model = sd_models.model_data.sd_model
    return family_of(model) if hasattr(model, "is_sd1") else None


def host_vae(model: Any) -> Codec:
    return ForgeVAE(model) if IS_FORGE else WebuiVAE(model)


class WebuiVAE:
    """AUTOMATIC1111's VAE as the core's `Codec`: scaled latents (B,4,h,w), pictures (B,3,8h,8w) in [-1,1]."""

    channels, downscale_factor = 4, FACTOR

    def __init__(self, model: Any) -> None:
        self._model = model

    def encode(self, pictures: Tensor) -> Tensor:
        return torch.cat([self._encode(picture) for picture in pictures.split(1)])

    def _encode(self, picture: Tensor) -> Tensor:
        model = self._model
        model.first_stage_model.to(devices.dtype_vae)
        # The mean: a draw of the posterior would come from the global generator, and differ in a batch.
        posterior = model.encode_first_stage(picture.to(devices.device, devices.dtype_vae))
        return model.get_first_stage_encoding(posterior.mode()).to(picture)

    def decode(self, latents: Tensor) -> Tensor:
        return torch.cat([self._decode(latent) for latent in latents.split(1)])

    def _decode(self, latent: Tensor) -> Tensor:
        if shared.opts.sd_vae_decode_method == "Full":  # the host's way, which mends a VAE that overflows in half
            (picture,) = processing.decode_latent_batch(self._model, latent, check_for_nans=True)
            return picture[None].to(latent)
        return sd_samplers_common.samples_to_images_tensor(latent.to(devices.dtype_vae), 0, self._model).to(latent)


class ForgeVAE:
    """Forge's VAE as the core's `Codec`; it does tiles by itself when memory runs out."""

    channels, downscale_factor = 4, FACTOR

    def __init__(self, model: Any) -> None:
        self._vae = model.forge_objects.vae.clone()
        self._vae.patcher.set_model_vae_regulation(lambda posterior: posterior.mode())

    def encode(self, pictures: Tensor) -> Tensor:
        raw = [self._vae.encode(picture.movedim(1, -1) / 2 + 0.5) for picture in pictures.split(1)]
        return self._vae.first_stage_model.process_in(torch.cat(raw)).to(pictures)

    def decode(self, latents: Tensor) -> Tensor:
        raw = self._vae.first_stage_model.process_out(latents)
        return torch.cat([self._vae.decode(latent) for latent in raw.split(1)]).movedim(-1, 1).to(latents) * 2 - 1


# --- the network and memory


@lru_cache(maxsize=1)
def _loaded(source: str, modified: float) -> Model:
    # Forge works in inference mode, and a tensor that is made there can never leave it.
    with torch.inference_mode(False):
        return load_model(source)


@lru_cache(maxsize=1)
def _loaded_codec() -> TinyVAE:
    with torch.inference_mode(False):
        return load_codec("builtin")


@contextmanager
def bundled_codec() -> Iterator[Codec]:
    """The bundled codec on the device; afterwards it is on the CPU again."""
    codec = _loaded_codec()
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
    """Have the network on the device, and room for a picture of size (width, height); afterwards it is on the CPU."""
    half = devices.device.type == "cuda" and devices.dtype == torch.float16
    dtype = torch.float16 if half else torch.float32
    _make_room(model.working_memory(size[0] * size[1] // FACTOR**2, dtype))
    try:
        model.to(devices.device, dtype)
        with devices.without_autocast():
            yield
    finally:
        model.to("cpu", torch.float32)
        devices.torch_gc()


def _make_room(needed: int) -> None:
    """Send other networks away: with --medvram all of them, in Forge as many as are in the way of so many bytes."""
    if IS_FORGE:
        from backend import memory_management

        if devices.device.type != "cpu":
            memory_management.free_memory(needed, devices.device)
    else:
        from modules import lowvram

        checkpoint = sd_models.model_data.sd_model  # `shared.sd_model` would load one, which Extras can do without
        if checkpoint is not None and lowvram.is_enabled(checkpoint):
            lowvram.send_everything_to_cpu()
    devices.torch_gc()


def with_smaller_tiles(run: Callable[[int | str | None], Tensor], tile: str) -> Tensor:
    """run(tile), in smaller tiles where the device's memory runs out."""

    def before_again(smaller: int) -> None:
        print(f"FMBoost: out of memory, going on with tiles of {smaller} latents")
        devices.torch_gc()

    return in_smaller_tiles(run, parse_tile(tile), is_out_of_memory, before_again)


# --- pictures


def pixels_of(picture: Image.Image) -> Tensor:
    """A picture of any mode as (1,3,H,W) in [-1,1], on the CPU."""
    pixels = torch.from_numpy(np.array(picture.convert("RGB"), dtype=np.float32))
    return (pixels / 127.5 - 1).movedim(-1, 0)[None]


# --- the job


@contextmanager
def told(p: Any) -> Iterator[None]:
    """Show the core's warnings under the job's pictures."""
    with collected_warnings() as sentences:
        yield
    for sentence in sentences:
        p.comment(f"FMBoost: {sentence}")


def interrupted() -> bool:
    return bool(shared.state.interrupted or shared.state.skipped)


def item_noise(p: Any, item: int) -> Noise:
    """The host's noise of one item's seed and variation seed, which goes on drawing at every call."""
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
    """The host's progress bars and live preview, as the core's hooks, over several runs of it in a row."""

    def __init__(self, runs: int, evaluations: int) -> None:
        """evaluations: that the host's bar of all steps was told of, however many tiles, stages and runs there are."""
        self._runs, self._run, self._evaluations, self._told = runs, 0, evaluations, 0

    def next_run(self) -> None:
        self._run += 1

    def on_progress(self, done: int, total: int) -> None:
        state = shared.state
        # An adaptive solver does not know its total: the bar stays a little ahead of it.
        total = total or max(24, done + 6)
        state.sampling_step, state.sampling_steps = self._run * total + done, self._runs * total
        reached = self._evaluations * state.sampling_step // state.sampling_steps
        for _ in range(reached - self._told):
            shared.total_tqdm.update()
        self._told = max(self._told, reached)

    def on_state(self, t: float, state: Tensor) -> None:
        sd_samplers_common.store_latent(state)


def save_before_hires(p: Any, samples: Tensor, seeds: Any, prompts: Any) -> None:
    """The small pictures, if the host's settings want them, as its own second pass saves them."""
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
