"""The hires-fix pass: FMBoost upscales a job's small latents instead of the host's second diffusion pass.

Only the job itself is changed: its `sample_hr_pass`, and its `sample` where it cannot work. An error leaves nothing
behind. The dropdown's entries are latent upscale modes that the host's own pass cannot interpolate with, so that a job
without this extension fails instead of becoming another kind of pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from modules import devices, processing, shared
from torch import Tensor

from fmboost_core import Target, Upscaler
from fmboost_core.codecs.periodic import periodic
from fmboost_core.codecs.protocol import Codec
from fmboost_core.errors import Cancelled
from fmboost_core.sampling.checks import check_crop
from fmboost_core.sampling.options import flow_behind
from fmboost_core.tiles import Tileable

from . import checkpoint, host, upscale_model
from .models import ModelFile, choose_model, entries, find_models
from .options import INFOTEXT_KEYS, WIDGETS, Options, to_infotext

IMPOSSIBLE_MODE = {"mode": "fmboost-not-installed", "antialias": False}
SAME_SIZE = {"mode": "nearest-exact", "antialias": False}  # leaves a latent that has its size already as it is
OVERRIDE = "fmboost_"  # prefix of the attributes by which an X/Y/Z plot sets options

MODELS: list[ModelFile] = []  # found at the last loading of the page


def register_entries() -> None:
    """Look for models, and put their entries into the dropdown, its API and its X/Y/Z axis."""
    MODELS[:], complaints = find_models(host.models_folder())
    for complaint in complaints:
        print(f"FMBoost: {complaint}")
    for name in entries(MODELS):
        shared.latent_upscale_modes.setdefault(name, dict(IMPOSSIBLE_MODE))


def is_wanted(p: Any) -> bool:
    """Whether a job's hires-fix uses one of our entries."""
    return bool(getattr(p, "enable_hr", False)) and p.hr_upscaler in entries(MODELS)


def install(p: Any, args: Sequence[Any]) -> None:
    """Before a job: replace its second pass, or remove what an earlier job left in it. args: the accordion's values."""
    uninstall(p)
    if is_wanted(p):
        HiresPass(p, args).install()


def uninstall(p: Any) -> None:
    """Remove what is ours from a job: an X/Y/Z plot copies jobs together with it."""
    for name in ("sample_hr_pass", "sample"):
        if isinstance(getattr(vars(p).get(name), "__self__", None), HiresPass):
            delattr(p, name)
    for key in INFOTEXT_KEYS:
        p.extra_generation_params.pop(key, None)


def prepare(p: Any) -> None:
    """Prepare the pass of a job whose checkpoint is loaded."""
    owner = getattr(vars(p).get("sample_hr_pass"), "__self__", None)
    if isinstance(owner, HiresPass):
        owner.prepare()


class HiresPass:
    """The second pass of one job."""

    def __init__(self, p: Any, args: Sequence[Any]) -> None:
        self.p, self.args = p, args
        self.error: Exception | None = None

    def install(self) -> None:
        """Replace the job's second pass, and read the options."""
        self.p.sample_hr_pass = self.run
        self._attempt(self._read_options)

    def prepare(self) -> None:
        """Choose the model, and check that the options and the size fit it."""
        self._attempt(self._prepare)

    def _attempt(self, action: Callable[[], None]) -> None:
        """The hosts hide errors of scripts, and show those of sampling: keep the error for the sampling."""
        try:
            if self.error is None:
                action()
        except Exception as error:
            self.error = error
            self.p.sample = self.refuse

    def refuse(self, *_: Any, **__: Any) -> None:
        """Raise the error in place of the first pass, whose result would be lost."""
        assert self.error is not None
        raise self.error

    def _read_options(self) -> None:
        p = self.p
        overrides = {name: getattr(p, OVERRIDE + name) for name in WIDGETS if hasattr(p, OVERRIDE + name)}
        self.options = Options.of(self.args, overrides)
        if getattr(p, "hr_additional_modules", ()) is None:  # through the API; Forge raises without them
            p.hr_additional_modules = ["Use same choices"]
        if p.firstpass_image is not None:  # of the sparkle button; Forge cannot encode the alpha channel of its own
            p.firstpass_image = p.firstpass_image.convert("RGB")
        if not self.options.refine:  # no second prompt, sampler or checkpoint takes part
            p.hr_prompt = p.hr_negative_prompt = ""
            p.hr_checkpoint_name = p.hr_sampler_name = p.hr_scheduler = None

    def _prepare(self) -> None:
        p = self.p
        self.model = choose_model(MODELS, p.hr_upscaler, self.options.model, checkpoint.party_of(p.sd_model))
        with host.warnings_shown(p):
            self.enlarger = upscale_model.named(self.options.enlarger(self.model.spec))
            sampling = self.options.sampling(p.hr_second_pass_steps)
            self.sampling = sampling.resolve(self.model.spec, behind=flow_behind(self.enlarger))
        if not self.options.refine:  # the host counts its progress with it, and writes it into the infotext
            p.hr_second_pass_steps = self.sampling.nfe
        self._check_size()
        p.extra_generation_params.update(to_infotext(self.options, self.model))

    def _check_size(self) -> None:
        """Refuse a size that is too large, or below the first pass: the host itself sets the size only later."""
        p = copy(self.p)
        p.extra_generation_params = {}  # the host writes the size of the copy into it
        p.calculate_target_resolution()
        width, height = (p.width, p.height) if p.firstpass_image is None else p.firstpass_image.size
        end = Target(size=cropped_size(p)).pixels((height, width), self.model.spec.scale)
        check_crop((height, width), end, distorts=False, tileable=self._tileable)

    @property
    def _tileable(self) -> Tileable:
        """The host's own option "Tiling", which makes its VAE and its own network seamless along both axes."""
        return Tileable(bool(self.p.tiling), bool(self.p.tiling))

    def run(
        self, samples: Tensor, decoded_samples: Any, seeds: Any, subseeds: Any, subseed_strength: Any, prompts: Any
    ) -> Any:
        """`StableDiffusionProcessingTxt2Img.sample_hr_pass`: small latents (B,C,h,w) -> large decoded images."""
        if shared.state.interrupted:
            return samples
        try:
            if self.options.refine:
                return self._refined(samples, seeds, subseeds, subseed_strength, prompts)
            host.tell_hires(self.p)
            host.save_before_hires(self.p, samples, seeds, prompts)
            return self._decoded(samples)
        except Cancelled:
            return samples  # the small image is whole; a state half-way is noise

    def _decoded(self, samples: Tensor) -> Any:
        """The large images with the small images' content, as the host's own list of decoded images."""
        p = self.p
        p.is_hr_pass = True
        try:
            shared.state.nextjob()
            made = self._upscaled(samples, cropped_size(p), decode=True)
            p.sampler = None  # of the first pass; the host's own second pass leaves it so
            return processing.DecodedSamples(image[0].to(devices.cpu) for image in made)
        finally:
            p.is_hr_pass = False

    def _refined(self, samples: Tensor, *rest: Any) -> Any:
        """The host's own second pass over the large latents, which have the target's size already."""
        made = self._upscaled(samples, _size(self.p), decode=False)
        self.p.latent_scale_mode = SAME_SIZE
        return type(self.p).sample_hr_pass(self.p, torch.cat(made), None, *rest)

    def _upscaled(self, samples: Tensor, size: tuple[int, int], decode: bool) -> list[Tensor]:
        """Each item's large latent (1,C,H,W), or with decode its image (1,3,H,W). size: (width, height) in pixels."""
        p, restore = self.p, self.sampling.upsample in ("psu", "fast")
        model, vae = host.load_network(self.model.source), checkpoint.host_vae(p.sd_model)
        progress = host.Progress(samples.shape[0], p.hr_second_pass_steps if decode else 0)
        hooks, target = progress.hooks(bars=decode), Target(size=size)  # the host counts the sampler's steps itself
        flows = not decode or self.sampling.takes_flow(restore)
        enlarger = self.enlarger if flows else progress.watching(self.enlarger)

        def one(item: int, latent: Tensor, image: Tensor | None, tile: int | str | None) -> Tensor:
            options = replace(self.sampling, tile=tile, tileable=self._tileable)
            upscaler, noise = Upscaler(model, vae, options, hooks, enlarger), host.item_noise(p, item)
            if decode:
                return upscaler.image_of_latent(latent, target, noise, image, restore)
            return upscaler.latent(latent, target, noise, image)

        made, seamless = [], periodic(vae, self._tileable)
        with host.warnings_shown(p), host.on_device(model, size) if flows else host.room_for_image(size):
            # One by one: a batch then equals its singles, and takes no more memory.
            for item, latent in enumerate(samples.split(1)):
                # Fast guides need no image where a sampler follows, and interpolated ones none at all.
                shows = self.sampling.upsample == "psu" or (decode and restore)
                image = self._small_image(latent, seamless) if shows else None
                made.append(host.with_smaller_tiles(partial(one, item, latent, image), self.sampling.tile))
                progress.next_run()
        return made

    def _small_image(self, latent: Tensor, vae: Codec) -> Tensor:
        """The image (1,3,h,w) of a small latent, which the sparkle button gives as it is."""
        given = self.p.firstpass_image
        if given is not None:
            return host.to_tensor(given).to(latent.device)
        return vae.decode(latent.float()).clamp(-1, 1)


def _size(p: Any) -> tuple[int, int]:
    """(width, height) in pixels that the host wants before it crops."""
    return p.hr_upscale_to_x // host.UNIT * host.UNIT, p.hr_upscale_to_y // host.UNIT * host.UNIT


def cropped_size(p: Any) -> tuple[int, int]:
    """(width, height) in pixels after the host's crop. The core covers that size and crops at the centre."""
    width, height = _size(p)
    return width - p.truncate_x * host.UNIT, height - p.truncate_y * host.UNIT
