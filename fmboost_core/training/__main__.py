"""`python -m fmboost_core.training encode | train | train-codec`: photographs to latents, latents to weights."""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoint import Model, load_model, save_model
from ..codec import load_codec, save_codec, tiny_codec
from ..config import FAMILIES, PRESETS, ModelSpec
from ..errors import ConfigError, FMBoostError
from ..schedule import alpha_bar
from ..unet import LatentUNet
from ..weight_file import require_fit
from .data import LatentCrops, PhotoCrops, load_shards
from .encode import encode_shards, find_photos, plan_views
from .loop import TrainConfig, Trainer
from .objective import CodecPasses, Velocity, cfm_loss, codec_loss, draw_times, straight_loss, straight_times

REPORT_SECONDS = 10.0


def encode(args: argparse.Namespace) -> None:
    codec, guide_codec = load_codec(args.codec), load_codec(args.guide_codec or args.codec)
    if args.bf16:
        codec, guide_codec = codec.to(torch.bfloat16), guide_codec.to(torch.bfloat16)
    name = Path(args.guide_codec).stem if args.guide_codec else ""
    views = plan_views(find_photos(args.photos), args.seed, name)
    started = time.monotonic()

    def progress(done: int, total: int) -> None:
        _report(f"{done}/{total} views", (time.monotonic() - started) * (total / done - 1))

    for path in encode_shards(views, codec, args.scale, args.out, guide_codec, progress):
        print(path)


def train(args: argparse.Namespace) -> None:
    data = load_shards(*args.latents)
    crops = LatentCrops(data, args.crop, dict(args.share))
    signal = alpha_bar(args.noise_step)
    torch.manual_seed(args.seed)
    network = LatentUNet(PRESETS[args.preset])
    if args.init is not None:
        start_from(network, load_model(args.init))
    elif args.straighten:
        raise ConfigError("--straighten needs --init, the trained model whose flow is to be straightened.")
    teacher = deepcopy(network).requires_grad_(False) if args.straighten else None

    def loss(network: Callable[..., Tensor], batch: int, generator: torch.Generator) -> Tensor:
        high, guide, kind = crops.draw(batch, generator)
        noise = torch.randn(high.shape, generator=generator)
        velocity = _told(network, kind)
        if teacher is None:
            return cfm_loss(velocity, high, guide, signal, noise, draw_times(batch, args.start_share, generator))
        times = straight_times(batch, generator)
        return straight_loss(velocity, _told(teacher, kind), high, guide, signal, noise, times)

    trainer = Trainer(network, loss, _config(args))
    _run(trainer, args.out.with_suffix(".training"))
    family = FAMILIES[args.family]
    spec = ModelSpec(
        name=args.out.stem, network=network.config, family=args.family, latent_factor=family.factor,
        latent_shift=family.shift, scale=data.scale, noise_step=args.noise_step, alpha_bar=signal,
        noise_steps=(args.noise_step,), license=args.license, trained_on=args.trained_on,
    )  # fmt: skip
    save_model(Model(spec, trainer.average), args.out, torch.float16)
    print(args.out)


def _told(network: Callable[..., Tensor], kind: Tensor) -> Velocity:
    """The network's velocity with the guides' kinds, where it can be told."""
    return lambda x, t, guide: network(x, t, guide, kind) if hasattr(network, "label_emb") else network(x, t, guide)


def start_from(network: LatentUNet, model: Model) -> None:
    """Give a network the weights of a trained one; the embedding of a guide's kind may be new, and is then zero."""
    weights = model.network.state_dict()
    if network.config.classes and not model.spec.network.classes:
        weights["label_emb.weight"] = torch.zeros_like(network.label_emb.weight)
    require_fit(Path(model.spec.name), network, {name: tuple(w.shape) for name, w in weights.items()})
    network.load_state_dict(weights)


def train_codec(args: argparse.Namespace) -> None:
    crops = PhotoCrops(load_shards(*args.latents), args.crop)
    torch.manual_seed(args.seed)
    passes = CodecPasses(tiny_codec())
    trainer = Trainer(passes, lambda net, batch, g: codec_loss(net, *crops.draw(batch, g)), _config(args))
    _run(trainer, args.out.with_suffix(".training"))
    save_codec(trainer.average.codec, args.out, license=args.license, trained_on=args.trained_on)
    print(args.out)


def _config(args: argparse.Namespace) -> TrainConfig:
    return TrainConfig(
        args.samples, args.batch, args.rate, args.warmup, args.decay, ema=args.ema, seed=args.seed, bf16=args.bf16,
        compile=args.compile,
    )  # fmt: skip


def _run(trainer: Trainer[Any], checkpoint: Path) -> None:
    """Train to the end with a line of progress every few seconds; a checkpoint that is there is continued."""
    if checkpoint.exists():
        trainer.resume(checkpoint)
    config, first, started, told = trainer.config, trainer.step, time.monotonic(), time.monotonic()
    losses: deque[float] = deque(maxlen=500)
    for step, loss in trainer.run(checkpoint):
        losses.append(loss)
        if time.monotonic() - told > REPORT_SECONDS:
            told = time.monotonic()
            speed = (step + 1 - first) / (told - started)
            done = f"{(step + 1) * config.batch}/{config.samples} samples, loss {sum(losses) / len(losses):.4f}"
            _report(f"{done}, {speed * config.batch:.0f} samples/s", (config.steps - step - 1) / speed)


def _report(done: str, seconds_left: float) -> None:
    print(f"{done}, {seconds_left / 60:.0f} min left", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fmboost_core.training", description=__doc__)
    commands = parser.add_subparsers(required=True)
    p = commands.add_parser("encode", help="photographs to shards of latents, once; a killed run continues")
    p.add_argument("photos", nargs="+", type=Path, help="files and folders")
    p.add_argument("--codec", required=True, help="prefix of a TAESD pair, or builtin")
    p.add_argument("--guide-codec", help="another codec of the same latent space to make the guides with")
    p.add_argument("--scale", type=int, default=2, help="magnification to learn")
    p.add_argument("--out", type=Path, required=True, help="folder for the shards")
    p.add_argument("--seed", type=int, default=0, help="of the order of the photographs")
    p.add_argument("--bf16", action="store_true", help="twice as fast where the processor has it")
    p.set_defaults(run=encode)
    p = commands.add_parser("train", help="latents to a model; continues OUT.training if it is there")
    p.add_argument("--preset", choices=PRESETS, default="lite")
    p.add_argument("--family", choices=FAMILIES, default="sd15", help="whose latents the shards hold")
    p.add_argument("--noise-step", type=int, default=400, help="of the start, 0 to 999")
    p.add_argument("--start-share", type=float, default=0.1, help="of times that are exactly 0")
    p.add_argument("--straighten", action="store_true", help="reflow of --init's model: few steps lose less")
    p.add_argument("--init", help="model to start from, a name or a path, instead of fresh weights")
    p.add_argument(
        "--share", action="append", type=_share, default=[], metavar="GROUP=SHARE",
        help="how often guides of a group are drawn: latent, image, latent:CODEC, image:CODEC (default: all alike)",
    )  # fmt: skip
    _training_options(p, samples=250_000, crop=32)
    p.set_defaults(run=train)
    p = commands.add_parser("train-codec", help="photographs and latents to our tiny codec")
    _training_options(p, samples=100_000, crop=16)
    p.set_defaults(run=train_codec)
    return parser


def _share(text: str) -> tuple[str, float]:
    """latent:builtin=0.2 -> ("latent:builtin", 0.2); argparse makes a sentence of the ValueError."""
    group, _, share = text.rpartition("=")
    return group, float(share)


def _training_options(p: argparse.ArgumentParser, samples: int, crop: int) -> None:
    p.add_argument("latents", type=Path, nargs="+", help="folders of shards")
    p.add_argument("out", type=Path, help="the .safetensors to write")
    p.add_argument("--samples", type=int, default=samples, help="crops to train on in all")
    p.add_argument("--crop", type=int, default=crop, help="side of a crop in latents")
    p.add_argument("--batch", type=int, default=16)
    p.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    p.add_argument("--decay", type=float, default=0.3, help="share of the steps over which the rate falls to 0")
    p.add_argument("--warmup", type=int, default=500, help="steps over which the rate rises")
    p.add_argument("--ema", type=float, default=0.999, help="how much of the averaged weights a step keeps")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--fp32", dest="bf16", action="store_false", help="no bf16 autocast")
    p.add_argument("--compile", action="store_true", help="torch.compile: faster, needs a C++ compiler")
    p.add_argument("--license", default="unknown")
    p.add_argument("--trained-on", default="unknown", help="in words, for the model card")


def main() -> int:
    args = _parser().parse_args()
    try:
        args.run(args)
    except FMBoostError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped; the same command continues.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
