"""FMBoost instead of a job's second pass: the small latent is carried to the large one, and that is decoded.

Nothing of the host's is patched: one job's own `sample_hr_pass` is set (and `sample`, where the job cannot work), so
that an error leaves nothing behind. The dropdown's entry is one of the host's latent upscale modes, of a kind that
the host's own pass cannot take: were ours not there, it would fail instead of doing something else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import fields
from functools import partial
from typing import Any

import torch
from modules import devices, processing, shared
from torch import Tensor

from fmboost_core import boost
from fmboost_core.errors import Cancelled
from fmboost_core.sampling.restore import restore
from fmboost_core.sampling.solvers import check_solver
from fmboost_core.sampling.target import Target

from . import host
from .options import INFOTEXT_KEYS, Found, Options, choose_model, entries, find_models, to_infotext

IMPOSSIBLE_MODE = {"mode": "fmboost-not-installed", "antialias": False}
SAME_SIZE = {"mode": "nearest-exact", "antialias": False}  # a latent that has its size already stays as it is
OVERRIDE = "fmboost_"  # prefix of the attributes by which an X/Y/Z plot sets options

MODELS: list[Found] = []  # what can be chosen, as of the last loading of the page


def register_entries() -> None:
    """Look for models, and put our names into the dropdown, its API and its X/Y/Z axis."""
    MODELS[:], complaints = find_models(host.models_folder())
    for complaint in complaints:
        print(f"FMBoost: {complaint}")
    for name in entries(MODELS):
        shared.latent_upscale_modes.setdefault(name, dict(IMPOSSIBLE_MODE))


def is_wanted(p: Any) -> bool:
    return bool(getattr(p, "enable_hr", False)) and p.hr_upscaler in entries(MODELS)


def install(p: Any, args: Sequence[Any]) -> None:
    """Before a job: have FMBoost do its second pass, or nothing of ours if it is not wanted (any more)."""
    uninstall(p)
    if is_wanted(p):
        HiresPass(p, args).install()


def uninstall(p: Any) -> None:
    """An X/Y/Z plot copies jobs: take away what came from the one before."""
    for name in ("sample_hr_pass", "sample"):
        if isinstance(getattr(vars(p).get(name), "__self__", None), HiresPass):
            delattr(p, name)
    for key in INFOTEXT_KEYS:
        p.extra_generation_params.pop(key, None)


def prepare(p: Any) -> None:
    """When the job's checkpoint is loaded."""
    owner = getattr(vars(p).get("sample_hr_pass"), "__self__", None)
    if isinstance(owner, HiresPass):
        owner.prepare()


class HiresPass:
    """The second pass of one job."""

    def __init__(self, p: Any, args: Sequence[Any]) -> None:
        self.p, self.args = p, args
        self.mistake: Exception | None = None

    def install(self) -> None:
        self.p.sample_hr_pass = self.run
        self._attempt(self._read_options)

    def prepare(self) -> None:
        self._attempt(self._prepare)

    def _attempt(self, action: Callable[[], None]) -> None:
        """The hosts swallow errors of scripts here, and show those of sampling: keep it for then."""
        try:
            if self.mistake is None:
                action()
        except Exception as error:
            self.mistake = error
            self.p.sample = self.refuse

    def refuse(self, *_: Any, **__: Any) -> None:
        """Instead of the first pass, which would be in vain."""
        assert self.mistake is not None
        raise self.mistake

    def _read_options(self) -> None:
        p = self.p
        names = [field.name for field in fields(Options)]
        overrides = {name: getattr(p, OVERRIDE + name) for name in names if hasattr(p, OVERRIDE + name)}
        self.options = Options.of(self.args, overrides)
        if host.IS_FORGE and p.hr_additional_modules is None:  # through the API, where Forge then raises
            p.hr_additional_modules = ["Use same choices"]
        if p.firstpass_image is not None:  # of the sparkle button; Forge's has an alpha channel, which it cannot encode
            p.firstpass_image = p.firstpass_image.convert("RGB")
        if not self.options.refine:  # no second prompt, sampler or checkpoint takes part
            p.hr_prompt = p.hr_negative_prompt = ""
            p.hr_checkpoint_name = p.hr_sampler_name = p.hr_scheduler = None

    def _prepare(self) -> None:
        p, options = self.p, self.options
        self.model = choose_model(MODELS, p.hr_upscaler, options.model, host.family_of(p.sd_model))
        own = options.refine or not p.hr_second_pass_steps
        if not options.refine:  # the host counts with it, and the infotext tells it
            p.hr_second_pass_steps = p.hr_second_pass_steps or self.model.spec.nfe
        check_solver(options.solver, self.evaluations, own)
        self._check_size()
        p.extra_generation_params.update(to_infotext(options, self.model.name))

    def _check_size(self) -> None:
        """Refuse what is too large, or smaller than the first pass: the host sets the size only after this."""
        p = copy(self.p)
        p.extra_generation_params = {}  # where the host would note the size of a copy
        p.calculate_target_resolution()
        width, height = (p.width, p.height) if p.firstpass_image is None else p.firstpass_image.size
        Target(size=cut_size(p)).pixels((height, width), self.model.spec.scale)

    @property
    def evaluations(self) -> int:
        """Of the network a stage: the hires steps, unless these are the sampler's."""
        return self.model.spec.nfe if self.options.refine else self.p.hr_second_pass_steps

    def run(
        self, samples: Tensor, decoded_samples: Any, seeds: Any, subseeds: Any, subseed_strength: Any, prompts: Any
    ) -> Any:
        """`StableDiffusionProcessingTxt2Img.sample_hr_pass`: small latents (B,4,h,w) -> large pictures."""
        if shared.state.interrupted:
            return samples
        try:
            if self.options.refine:
                return self._refined(samples, seeds, subseeds, subseed_strength, prompts)
            host.save_before_hires(self.p, samples, seeds, prompts)
            return self._decoded(samples)
        except Cancelled:
            return samples  # the small picture is whole; half-way it would be noise

    def _decoded(self, samples: Tensor) -> Any:
        p = self.p
        p.is_hr_pass = True
        try:
            shared.state.nextjob()
            large, small = self._boosted(samples, cut_size(p), self.evaluations)
            p.sampler = None  # of the first pass, as the host's own second pass leaves it
            pictures = processing.decode_latent_batch(p.sd_model, large, target_device=devices.cpu, check_for_nans=True)
            for item, picture in enumerate(small):  # the host's own list, which it knows by its type
                pictures[item] = restore(pictures[item][None], picture)[0]
            return pictures
        finally:
            p.is_hr_pass = False

    def _refined(self, samples: Tensor, *rest: Any) -> Any:
        """The host's own second pass over the boosted latent, which it has not to enlarge any more."""
        large, _ = self._boosted(samples, _size(self.p), 0)
        self.p.latent_scale_mode = SAME_SIZE
        return type(self.p).sample_hr_pass(self.p, large, None, *rest)

    def _boosted(self, samples: Tensor, size: tuple[int, int], evaluations: int) -> tuple[Tensor, list[Tensor]]:
        """The large latents, and the small pictures (1,3,h,w) where the guides are made from them.

        evaluations: how many of the host's steps these are; it counts none of them when the sampler follows.
        """
        p, options = self.p, self.options
        model, vae = host.load_network(self.model.source), host.host_vae(p.sd_model)
        progress = host.Progress(samples.shape[0], evaluations)
        given = None if p.firstpass_image is None else host.pixels_of(p.firstpass_image).to(samples.device)
        small: list[Tensor] = []

        def one(item: int, tile: int | str | None) -> Tensor:
            return boost(
                samples[item : item + 1], model, vae, size=size, nfe=self.evaluations, solver=options.solver,
                noise_step=options.own_noise_step, upsample=options.guide, noise=host.item_noise(p, item), tile=tile,
                image=small[item] if small else None, progress=progress.on_progress if evaluations else None,
                on_state=progress.on_state, cancelled=host.interrupted,
            )  # fmt: skip

        large = []
        with host.told(p), host.on_device(model, size):
            # One by one: a batch is then exactly its singles, and takes no more memory.
            for item in range(samples.shape[0]):
                if options.guide == "psu":
                    small.append(vae.decode(samples[item : item + 1].float()).clamp(-1, 1) if given is None else given)
                large.append(host.with_smaller_tiles(partial(one, item), options.tile))
                progress.next_run()
        return torch.cat(large), small


def _size(p: Any) -> tuple[int, int]:
    """Width and height in pixels that the host wants before it cuts."""
    return p.hr_upscale_to_x // host.FACTOR * host.FACTOR, p.hr_upscale_to_y // host.FACTOR * host.FACTOR


def cut_size(p: Any) -> tuple[int, int]:
    """Width and height in pixels of what remains; the core covers it and cuts at the centre by itself."""
    width, height = _size(p)
    return width - p.truncate_x * host.FACTOR, height - p.truncate_y * host.FACTOR
