"""The hosts, AUTOMATIC1111, Forge and their forks: memory, noise, progress, interrupts, images.

All hosts share the package `modules`. What only some of them have is looked for where it is needed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from modules import devices, images, paths, processing, rng, sd_models, sd_samplers_common, shared
from PIL import Image
from torch import Tensor

from fmboost_core import Hooks, load_codec, load_model, load_upscale_model
from fmboost_core.codecs.protocol import Codec
from fmboost_core.codecs.tiny import TinyVAE
from fmboost_core.errors import Cancelled, collected_warnings, is_out_of_memory
from fmboost_core.families import FAMILIES, IMAGE_FAMILY
from fmboost_core.files.upscale_model import LoadedUpscaleModel
from fmboost_core.model import Model
from fmboost_core.sampling.options import Behind
from fmboost_core.sampling.schedule import Noise
from fmboost_core.sampling.tiling import in_smaller_tiles
from fmboost_core.sampling.upscale_model import UpscaleModel
from fmboost_core.sampling.widgets import SharedBar

# Their modules that move models off the device: of Forge and Forge Neo, of reForge and Forge Classic.
MEMORY_MANAGERS = ("backend.memory_management", "ldm_patched.modules.model_management")
Result = TypeVar("Result")
UNIT = processing.opt_f  # pixels a latent, by which the hosts round and crop whatever the checkpoint


def models_folder() -> Path:
    """The folder of a user's own models."""
    return Path(paths.models_path) / "fmboost"


# --- the network and memory


@lru_cache(maxsize=1)
def _loaded(source: str, modified: float) -> Model:
    with _undisturbed():
        return load_model(source)


@lru_cache(maxsize=1)
def builtin_codec() -> TinyVAE:
    """The built-in codec for finished images, which needs no checkpoint; it waits on the CPU."""
    with _undisturbed():
        return load_codec("builtin", IMAGE_FAMILY)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Load networks here: when the host has loaded its first checkpoint, and outside of inference mode.

    AUTOMATIC1111 loads that in a thread, under a lock, and replaces methods of all of PyTorch's modules meanwhile.
    Forge works in inference mode, and a tensor that is made there cannot be used outside of it.
    """
    with getattr(sd_models.model_data, "lock", nullcontext()), torch.inference_mode(False):
        yield


@dataclass(frozen=True)
class BundledUpscaleModel:
    """A bundled upscale model, which takes smaller tiles where the device's memory runs out."""

    loaded: LoadedUpscaleModel

    @property
    def behind(self) -> Behind:
        return self.loaded.behind

    def watched(self, on_tile: Callable[[int, int], None]) -> BundledUpscaleModel:
        """The same, which tells its progress."""
        return BundledUpscaleModel(self.loaded.watched(on_tile))

    def __call__(self, image: Tensor) -> Tensor:
        def run(tile: int | str | None) -> Tensor:
            return self.loaded.in_tiles(int(tile or self.loaded.tile))(image)

        return with_smaller_tiles(run, self.loaded.tile, unit="pixels")


def bundled_upscale_model(name: str) -> BundledUpscaleModel:
    """A bundled upscale model on the device, which stops with the host after each tile."""

    with _undisturbed():
        loaded = load_upscale_model(name, devices.device, _dtype())
    return BundledUpscaleModel(loaded.watched(lambda done, total: _stop_with_the_host()))


def _stop_with_the_host() -> None:
    if interrupted():
        raise Cancelled("Stopped on request.")


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
    dtype = _dtype()
    positions = size[0] * size[1] // FAMILIES[model.spec.family].downscale_factor ** 2
    with _room(model.working_memory(positions, dtype)):
        try:
            model.to(devices.device, dtype)
            yield
        finally:
            model.to("cpu", torch.float32)


def room_for_image(size: tuple[int, int]) -> AbstractContextManager[None]:
    """Room on the device for an upscale model alone, which makes an image of size (width, height)."""
    return _room(3 * 64 * size[0] * size[1] * _dtype().itemsize)  # three maps of 64 channels


@contextmanager
def _room(needed: int) -> Iterator[None]:
    """Room for so many bytes on the device, without the host's autocast."""
    _make_room(needed)
    try:
        with devices.without_autocast():
            yield
    finally:
        devices.torch_gc()


def _dtype() -> torch.dtype:
    """The number type of our networks: half precision only where the host has it on a GPU of NVIDIA or AMD."""
    half = devices.device.type == "cuda" and devices.dtype == torch.float16
    return torch.float16 if half else torch.float32


def _make_room(needed: int) -> None:
    """Move other networks off the device: with --medvram all of them, in Forge's line until `needed` bytes are free."""
    manager = next((sys.modules[name] for name in MEMORY_MANAGERS if name in sys.modules), None)
    if manager is None:
        from modules import lowvram

        checkpoint = sd_models.model_data.sd_model  # `shared.sd_model` would load one; Extras need none
        if checkpoint is not None and lowvram.is_enabled(checkpoint):
            lowvram.send_everything_to_cpu()
    elif devices.device.type != "cpu":
        manager.free_memory(needed, devices.device)
    devices.torch_gc()


def with_smaller_tiles(
    run: Callable[[int | str | None], Result], tile: int | str | None, unit: str = "latents"
) -> Result:
    """run(tile), with smaller tiles where the device's memory runs out. tile: see `SamplingOptions`. unit: of it."""

    def before_retry(smaller: int) -> None:
        print(f"FMBoost: out of memory, going on with tiles of {smaller} {unit}")
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

    def watching(self, upscale_model: UpscaleModel | None) -> UpscaleModel | None:
        """An upscale model whose tiles the bars count, where it tells of them; for runs without the flow."""

        def on_tile(done: int, total: int) -> None:
            self._show(done, total)
            _stop_with_the_host()

        return upscale_model.watched(on_tile) if isinstance(upscale_model, BundledUpscaleModel) else upscale_model

    def _show(self, done: int, total: int) -> None:
        state = shared.state
        state.sampling_step, state.sampling_steps = self._bar.place(done, total)
        reached = self._steps * state.sampling_step // state.sampling_steps
        for _ in range(reached - self._counted):
            shared.total_tqdm.update()
        self._counted = max(self._counted, reached)


def tell_hires(p: Any) -> None:
    """Write into the infotext what pastes the pass again; Forge Neo itself writes it in its own second pass."""
    p.extra_generation_params.update(
        {
            "Denoising strength": p.denoising_strength, "Hires upscaler": p.hr_upscaler,
            "Hires steps": p.hr_second_pass_steps,
        }
    )  # fmt: skip


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
