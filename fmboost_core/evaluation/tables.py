"""What the ablations compare: which small networks are trained for them, and which rows their tables have.

They repeat the paper's comparisons (Tables 2 and 3 of the ECCV text; Tables 6 and 8, Fig. 8 and appendix A.1 of
arXiv's) with the network `lite` and the same samples for every row of a table.
"""

from __future__ import annotations

from dataclasses import dataclass

OBJECTIVE_SAMPLES, OTHER_SAMPLES = 40_000, 10_000
# The recipe `lite`, for short trainings; times are drawn as the paper draws them.
COMMON = ("loop.warmup=100", "loop.decay=0.4", "loop.ema=0.995", "objective.start_share=0.0")


@dataclass(frozen=True)
class Training:
    """A network to train. shards: the folder of its latents among the data; changes: of the recipe `lite`."""

    changes: tuple[str, ...] = ()
    samples: int = OTHER_SAMPLES
    shards: str = "x2"


TRAININGS = {
    "cfm": Training(samples=OBJECTIVE_SAMPLES),
    **{
        name: Training((f"objective.name={name}",), samples=OBJECTIVE_SAMPLES) for name in ("fm", "dm", "l1", "l2")
    },
    **{f"noise-{step}": Training((f"objective.noise_step={step}",)) for step in (0, 100, 200, 400, 600, 800)},
    "bilinear": Training(("data.upsampling=bilinear",)),
    "nearest": Training(("data.upsampling=nearest",)),
    "reflow": Training(("objective.name=reflow", "start.model={cfm}", "loop.rate=3e-4")),
    "x4-clean": Training(shards="x4"),
    "x4-degraded": Training(shards="x4-degraded"),
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A line of a table: a network and how it is sampled."""

    name: str
    network: str
    nfe: int = 4
    solver: str = "euler"


@dataclass(frozen=True)
class Table:
    """A comparison.

    question: what it asks, for people. scale: by how much photographs are reduced; degraded: and spoiled.
    kind: what guides are made from, one of `config.GUIDE_KINDS`, as the networks were trained.
    curves: whether figures are drawn over the numbers of evaluations instead of as bars.
    """

    question: str
    rows: tuple[Row, ...]
    scale: int = 2
    degraded: bool = False
    kind: str = "latent"
    curves: bool = False


def _over_evaluations(network: str, title: str, counts: tuple[int, ...]) -> tuple[Row, ...]:
    return tuple(Row(f"{title}, nfe {nfe}", network, nfe) for nfe in counts)


_COUNTS = (1, 2, 4, 10, 50)

TABLES = {
    "objectives": Table(
        "What is gained by coupling the noised guide with the photograph (CFM), against flow matching from noise (FM), "
        "diffusion (DM) and regression (L1, L2)? Paper: Table 2.",
        (
            *_over_evaluations("cfm", "CFM", _COUNTS), *_over_evaluations("fm", "FM", _COUNTS),
            *_over_evaluations("dm", "DM", _COUNTS), Row("L1", "l1", 1), Row("L2", "l2", 1),
        ),
        curves=True,
    ),
    "nfe": Table(
        "How many evaluations does CFM need, and does an adaptive solver do better than Euler? Paper: arXiv's Table 8.",
        (
            *_over_evaluations("cfm", "CFM", _COUNTS),
            Row("CFM, dopri5", "cfm", 1, "dopri5"), Row("CFM, heun 4", "cfm", 4, "heun"),
        ),
        curves=True,
    ),
    "upsampling": Table(
        "Is a guide made in pixels (PSU) better than a resized latent? Paper: arXiv's Table 6.",
        (Row("PSU", "noise-400"), Row("bilinear", "bilinear"), Row("nearest", "nearest")),
    ),
    "noise": Table(
        "How much noise should the start have? Paper: Fig. 8, best around step 400.",
        tuple(Row(f"step {step}", f"noise-{step}") for step in (0, 100, 200, 400, 600, 800)),
    ),
    "reflow": Table(
        "Does straightening the flow bring few evaluations nearer to many? Reflow, arXiv 2209.03003; not in the paper.",
        (*_over_evaluations("cfm", "CFM", (1, 2, 4, 8)), *_over_evaluations("reflow", "reflow", (1, 2, 4, 8))),
        curves=True,
    ),
    "degraded": Table(
        "Small pictures spoiled by blur, noise and JPEG (4x): does training on such help on such? Paper: appendix A.1.",
        (Row("trained on clean", "x4-clean"), Row("trained on degraded", "x4-degraded")),
        scale=4,
        degraded=True,
        kind="image",
    ),
    "degraded-on-clean": Table(
        "The same two networks on clean small pictures: what does it cost there?",
        (Row("trained on clean", "x4-clean"), Row("trained on degraded", "x4-degraded")),
        scale=4,
        kind="image",
    ),
    "cascade": Table(
        "Behind the same small latents, two stages of 2x: CFM against DM, at few and at many evaluations a stage. "
        "Paper: Table 3, there behind Stable Diffusion; here behind encodings of photographs reduced by 4.",
        (
            *_over_evaluations("cfm", "CFM", (2, 4, 20)), *_over_evaluations("dm", "DM", (2, 4, 20)),
        ),
        scale=4,
        curves=True,
    ),
}  # fmt: skip
