"""The sections of a recipe as frozen dataclasses: data, objective, start, loop, card. Each field is checked."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ..errors import require
from ..families import FAMILIES
from ..sampling.guide import UPSAMPLERS
from ..sampling.schedule import NOISE_STEPS
from ..spec import OBJECTIVES, require_strength

CONTINUING = ("reflow", "decoded")  # objectives that continue from a trained flow and end as one
LEAST_PERCEIVED = 7  # side in latents of the least window that features and critics look at
OBJECTIVE_NAMES = (*OBJECTIVES, *CONTINUING)  # the keys of `losses.BUILDERS`


@dataclass(frozen=True)
class DataSection:
    """The crops of a training step.

    crop: side in latents.
    batch: crops of an optimiser step, over all processes and accumulated parts together.
    upsampling: how guides are made: "psu" (pixel-space upsampling), "fast" (by a guide network, which trains too),
        "bilinear" or "nearest" (in latent space).
    part: side in latents of the part of each crop that the flow sees, anywhere in the crop; the guide network sees the
        whole crop, as it looks further. 0: the whole (fast).
    shares: proportions in which groups of guides are drawn, such as {latent = 0.8, image = 0.2}; a group that is not
        named is not drawn. Empty: all groups alike.
    """

    crop: int = 32
    batch: int = 16
    upsampling: str = "psu"
    part: int = 0
    shares: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(self.crop > 0, "data.crop", self.crop, "above 0")
        require(self.batch > 0, "data.batch", self.batch, "above 0")
        require(0 <= self.part <= self.crop, "data.part", self.part, f"0 to data.crop, which is {self.crop}")
        require(self.upsampling in UPSAMPLERS, "data.upsampling", self.upsampling, " or ".join(UPSAMPLERS))


@dataclass(frozen=True)
class ObjectiveSection:
    """The training objective (`losses`). In parentheses: the objectives that read a field.

    An upscale model's training (`enlarging`) has no objective by name; it reads texture to mean, coarse, overshoot,
    features, small, critics, informed and network as "decoded" does.

    name: one of `OBJECTIVE_NAMES`.
    noise_step: noise step of the start, 0 to 999 (cfm, reflow, decoded).
    noise_steps: the least and the greatest noise step of a network that is conditioned on the noise level; six in ten
        crops start between them, the others at noise_step. Empty: all start at noise_step (cfm, reflow, decoded).
    octave: noise steps that double the weight of texture and lines; 0: the weight is the same at all steps (decoded).
    sigma_min: standard deviation of the state around its path (cfm, fm).
    start_share: share of the times that are 0 (cfm, fm).
    since: time in [0,0.25] up to which the trajectory stays as it is; 0: all of it changes (reflow, decoded).
    teacher_steps: Euler steps of the teacher after `since` (reflow).
    decoder: the codec that decodes, named as for the command encode (decoded).
    texture: factor of texture and lines; more gives more detail and less PSNR (decoded).
    lines: a further factor of lines alone (decoded).
    error: factor of the squared error of the pixels (decoded).
    mean: factor of the error of the mean colour (decoded).
    coarse: weight of coarse content; more gives more PSNR and less detail (decoded).
    latents: factor of the latents' own texture and mean; it keeps them as other decoders expect them (decoded).
    latents_texture: weight of the latents' texture besides that, where the images' own texture has little (decoded).
    overshoot: weight of what leaves the range of the ground truth nearby: grain on flat areas, rims (decoded).
    window: side in latents of the part of each crop that is decoded, anywhere in it (decoded).
    last_share: share of the decoded crops that begin at the last of four steps (decoded).
    steps: 4, or 1 for a model of a single evaluation, whose steps take less time (decoded).
    features: weight of the distance of ImageNet features (decoded).
    small: weight of the distance of ImageNet features, at half the size, from what the small latent shows; for an
        upscale factor of 2 (decoded).
    critics: weight of critics, which learn to tell the results from the ground truth (decoded).
    informed: whether the critics see the guide, decoded, beside each image (decoded).
    photos: whether the critics take photographs for real where the ground truth is a teacher's (decoded).
    sharpen: how much the edges of an upscale model's photographs are sharpened (0 to 2).
    anchor: weight of the squared distance of fast guides from PSU's.
    network: whose features these are: lite0 to lite4 of EfficientNet, from its package, or a file with lite0's weights.
    """

    name: str = "cfm"
    noise_step: int = 400
    noise_steps: tuple[int, ...] = ()
    octave: float = 0.0
    sigma_min: float = 0.0
    start_share: float = 0.1
    since: float = 0.0
    teacher_steps: int = 8
    decoder: str = ""
    texture: float = 1.0
    lines: float = 1.0
    error: float = 1.0
    mean: float = 1.0
    coarse: float = 0.0
    latents: float = 1.0
    latents_texture: float = 0.0
    overshoot: float = 0.0
    window: int = 16
    last_share: float = 0.0
    steps: int = 4
    features: float = 0.0
    small: float = 0.0
    critics: float = 0.0
    informed: bool = False
    photos: bool = False
    sharpen: float = 0.0
    anchor: float = 0.0
    network: str = "lite0"

    def __post_init__(self) -> None:
        require(self.name in OBJECTIVE_NAMES, "objective.name", self.name, " or ".join(OBJECTIVE_NAMES))
        require(0 <= self.noise_step < NOISE_STEPS, "objective.noise_step", self.noise_step, "0 to 999")
        least_and_greatest = len(self.noise_steps) == 2 and self._around(*self.noise_steps)
        rule = "empty, or the least and the greatest step around noise_step"
        require(not self.noise_steps or least_and_greatest, "objective.noise_steps", self.noise_steps, rule)
        noised = self.name in ("cfm", *CONTINUING)
        require(noised or not self.noise_steps, "objective.noise_steps", self.noise_steps, f"empty with {self.name!r}")
        require(0 <= self.octave < math.inf, "objective.octave", self.octave, "0 or above and finite")
        require(0 <= self.sigma_min < 1, "objective.sigma_min", self.sigma_min, "at least 0 and below 1")
        require(0 <= self.start_share <= 1, "objective.start_share", self.start_share, "between 0 and 1")
        require(0 <= self.since <= 0.25, "objective.since", self.since, "between 0 and 0.25")
        require(1 <= self.teacher_steps <= 1000, "objective.teacher_steps", self.teacher_steps, "1 to 1000")
        for name in (
            "texture",
            "lines",
            "error",
            "mean",
            "coarse",
            "latents",
            "latents_texture",
            "overshoot",
            "features",
            "small",
            "critics",
            "anchor",
        ):
            value = getattr(self, name)
            require(0 <= value < math.inf, f"objective.{name}", value, "0 or above and finite")
        require(0 <= self.sharpen <= 2, "objective.sharpen", self.sharpen, "0 to 2")
        require(0 <= self.last_share <= 1, "objective.last_share", self.last_share, "between 0 and 1")
        require(self.steps in (1, 4), "objective.steps", self.steps, "1 or 4")
        least = self.least_perceived or 2
        require(least <= self.window <= 1024, "objective.window", self.window, f"{least} to 1024")
        needed = "the codec to decode with, for objective 'decoded'"
        require(self.name != "decoded" or bool(self.decoder), "objective.decoder", self.decoder, needed)

    @property
    def least_perceived(self) -> int:
        """Side in latents of the least window that features and critics can look at; 0: they have no weight."""
        if self.small:
            return LEAST_PERCEIVED + 1
        return LEAST_PERCEIVED if self.features or self.critics else 0

    def _around(self, least: int, greatest: int) -> bool:
        return 0 <= least <= self.noise_step <= greatest < NOISE_STEPS and least < greatest


@dataclass(frozen=True)
class StartSection:
    """The network before the first step.

    model: name or path of a trained model to start from, which is also reflow's teacher; of a codec, builtin
        or a file; of an upscale model, likewise. "": fresh weights.
    frozen: prefixes of the names of parameters that do not train, such as "input_blocks.0".
    guide: the guide network to start from, for fast guides: its file, a model that has one, or a public tiny VAE,
        whose first and last layers it takes (what the names of the two files begin with). "": fresh weights.
    kept: share of the weights before the first step in the file that is written (0 to 1), of an upscale model. It draws
        cleaner lines and less texture (network interpolation, Wang et al. 2018).
    """

    model: str = ""
    frozen: tuple[str, ...] = ()
    guide: str = ""
    kept: float = 0.0

    def __post_init__(self) -> None:
        require(0 <= self.kept <= 1, "start.kept", self.kept, "0 to 1")


@dataclass(frozen=True)
class LoopSection:
    """Length, optimiser and computation of a training.

    samples: crops to train on in all.
    rate, warmup, decay: the learning rate rises linearly over `warmup` steps, stays at `rate`, and falls linearly over
        the last `decay` of all steps (0 to 1). A running training can be given more samples before its decay begins.
    critics_rate: learning rate of critics, the same in all steps.
    beta1, beta2, weight_decay: of AdamW; with critics, a low beta1 keeps the two from circling around each other.
    clip: greatest norm of the gradient; 0: no limit.
    ema: share of the EMA weights that a step keeps.
    seed: of the fresh weights and of every step's random numbers.
    bf16: autocast to bfloat16.
    accumulate: parts that a step's batch is cut into.
    checkpointing: activations are computed twice instead of kept.
    compile: torch.compile.
    graphs: on a CUDA device, the computation of the gradients is recorded once and repeated as a CUDA graph. Its shapes
        must not change: not with "decoded" and since above 0.
    The last four change memory and speed, not the mathematics.
    """

    samples: int = 250_000
    rate: float = 1e-3
    warmup: int = 500
    decay: float = 0.3
    critics_rate: float = 3e-4
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.0
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    bf16: bool = True
    accumulate: int = 1
    checkpointing: bool = False
    compile: bool = False
    graphs: bool = False

    def __post_init__(self) -> None:
        for name in ("samples", "rate", "critics_rate", "accumulate"):
            require(0 < getattr(self, name) < math.inf, f"loop.{name}", getattr(self, name), "above 0 and finite")
        for name in ("warmup", "weight_decay", "clip"):
            require(0 <= getattr(self, name) < math.inf, f"loop.{name}", getattr(self, name), "0 or above and finite")
        require(0 <= self.seed < 2**32, "loop.seed", self.seed, "at least 0 and below 2**32")
        for name in ("decay", "ema", "beta1", "beta2"):
            require(0 <= getattr(self, name) <= 1, f"loop.{name}", getattr(self, name), "between 0 and 1")
        for name in ("beta1", "beta2"):
            require(getattr(self, name) < 1, f"loop.{name}", getattr(self, name), "below 1")

    def rate_at(self, step: int, steps: int) -> float:
        """The learning rate of a step, counted from 0, of a training of so many steps."""
        falling = max(1.0, self.decay * steps)
        return self.rate * min(1.0, (step + 1) / max(1, self.warmup), (steps - step) / falling)


@dataclass(frozen=True)
class CardSection:
    """What the model file says about itself.

    family: its latent space, a key of `FAMILIES`. nfe: function evaluations that it is sampled with unless told
    otherwise. strength: how much of what the flow changes is then kept (`ModelSpec`). The others are texts.
    """

    family: str = "sd15"
    license: str = "unknown"
    trained_on: str = "unknown"
    nfe: int = 4
    strength: float = 1.0

    def __post_init__(self) -> None:
        require(self.family in FAMILIES, "card.family", self.family, " or ".join(FAMILIES))
        require(1 <= self.nfe <= 1000, "card.nfe", self.nfe, "1 to 1000")
        require_strength(self.strength, "card.strength")
