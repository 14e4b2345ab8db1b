"""Tables of the ablations: the networks that are trained, and the rows that compare them. Imports no torch.

The tables repeat the paper's comparisons (Tables 2 and 3 of the ECCV text; Tables 6 and 8, Fig. 8 and appendix A.1 of
arXiv's) with the network `lite` and the same samples for every row of a table.
"""

from __future__ import annotations

from dataclasses import dataclass

OBJECTIVE_SAMPLES, OTHER_SAMPLES = 40_000, 10_000
# Changes of the recipe `lite` for short trainings; times are drawn uniformly, as in the paper.
COMMON = ("loop.warmup=100", "loop.decay=0.4", "loop.ema=0.995", "objective.start_share=0.0")


@dataclass(frozen=True)
class NetworkTraining:
    """A network's training: changes of the recipe `lite`, samples, and the folder of shards within the data."""

    changes: tuple[str, ...] = ()
    samples: int = OTHER_SAMPLES
    shards: str = "x2"


TRAININGS = {
    "cfm": NetworkTraining(samples=OBJECTIVE_SAMPLES),
    **{
        name: NetworkTraining((f"objective.name={name}",), samples=OBJECTIVE_SAMPLES)
        for name in ("fm", "dm", "l1", "l2")
    },
    **{f"noise-{step}": NetworkTraining((f"objective.noise_step={step}",)) for step in (0, 100, 200, 400, 600, 800)},
    "bilinear": NetworkTraining(("data.upsampling=bilinear",)),
    "nearest": NetworkTraining(("data.upsampling=nearest",)),
    "reflow": NetworkTraining(("objective.name=reflow", "start.model={cfm}", "loop.rate=3e-4")),
    "x4-clean": NetworkTraining(shards="x4"),
    "x4-degraded": NetworkTraining(shards="x4-degraded"),
}  # fmt: skip


@dataclass(frozen=True)
class TableRow:
    """A row of a table: its title, a network, and how the network is sampled."""

    name: str
    network: str
    nfe: int = 4
    solver: str = "euler"


@dataclass(frozen=True)
class Table:
    """A comparison of networks.

    question: what it asks, for people; scale: the downscale factor of the small images; degraded: whether they are
    also blurred, noised and compressed; kind: what guides are made from, one of `GUIDE_KINDS`, as in training;
    curves: whether plots are curves over NFE instead of bars.
    """

    question: str
    rows: tuple[TableRow, ...]
    scale: int = 2
    degraded: bool = False
    kind: str = "latent"
    curves: bool = False


def _over_nfe(network: str, title: str, counts: tuple[int, ...]) -> tuple[TableRow, ...]:
    return tuple(TableRow(f"{title}, nfe {nfe}", network, nfe) for nfe in counts)


_COUNTS = (1, 2, 4, 10, 50)

TABLES = {
    "objectives": Table(
        "Does coupling the noised guide with the photograph (CFM) improve on flow matching from noise (FM), diffusion "
        "(DM) and regression (L1, L2)? Paper: Table 2.",
        (
            *_over_nfe("cfm", "CFM", _COUNTS), *_over_nfe("fm", "FM", _COUNTS),
            *_over_nfe("dm", "DM", _COUNTS), TableRow("L1", "l1", 1), TableRow("L2", "l2", 1),
        ),
        curves=True,
    ),
    "nfe": Table(
        "How many function evaluations (NFE) does CFM need, and is an adaptive solver better than Euler? Paper: "
        "arXiv's Table 8.",
        (
            *_over_nfe("cfm", "CFM", _COUNTS),
            TableRow("CFM, dopri5", "cfm", 1, "dopri5"), TableRow("CFM, heun 4", "cfm", 4, "heun"),
        ),
        curves=True,
    ),
    "upsampling": Table(
        "Is a guide made in pixels (PSU) better than a resized latent? Paper: arXiv's Table 6.",
        (TableRow("PSU", "noise-400"), TableRow("bilinear", "bilinear"), TableRow("nearest", "nearest")),
    ),
    "noise": Table(
        "Which noise step is best for the start? Paper: Fig. 8, best around 400.",
        tuple(TableRow(f"step {step}", f"noise-{step}") for step in (0, 100, 200, 400, 600, 800)),
    ),
    "reflow": Table(
        "Does rectifying the flow (reflow, arXiv 2209.03003) improve results at low NFE? Not in the paper.",
        (*_over_nfe("cfm", "CFM", (1, 2, 4, 8)), *_over_nfe("reflow", "reflow", (1, 2, 4, 8))),
        curves=True,
    ),
    "degraded": Table(
        "Small images degraded by blur, noise and JPEG (4x): does training on degraded images improve the result? "
        "Paper: appendix A.1.",
        (TableRow("trained on clean", "x4-clean"), TableRow("trained on degraded", "x4-degraded")),
        scale=4,
        degraded=True,
        kind="image",
    ),
    "degraded-on-clean": Table(
        "The same two networks on clean small images: how much fidelity does training on degraded images cost?",
        (TableRow("trained on clean", "x4-clean"), TableRow("trained on degraded", "x4-degraded")),
        scale=4,
        kind="image",
    ),
    "cascade": Table(
        "Two stages of 2x from the same small latents: CFM against DM, at low and high NFE a stage. Paper: Table 3, "
        "there from latents of Stable Diffusion; here from encodings of photographs reduced by 4.",
        (
            *_over_nfe("cfm", "CFM", (2, 4, 20)), *_over_nfe("dm", "DM", (2, 4, 20)),
        ),
        scale=4,
        curves=True,
    ),
}  # fmt: skip
