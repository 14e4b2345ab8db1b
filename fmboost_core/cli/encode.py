"""The command `encode`: photographs to shards of latents, which training reads."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from .arguments import add_device

CONTINUES = "Stopped; the same command continues."  # said after Ctrl-C


def add_command(commands: Any) -> None:
    """Add the command to a parser's subparsers."""
    parser = commands.add_parser("encode", help="photographs to shards of latents, once, for training")
    parser.description = "Encode photographs to shards of latents, once. A stopped run continues where it was."
    add = parser.add_argument
    add("photos", nargs="+", type=Path, help="photographs, and folders of them")
    add(
        "--codec", required=True,
        help="prefix of a TAESD pair, builtin, or diffusers:FOLDER (or diffusers:hf://OWNER/REPO, which downloads)",
    )  # fmt: skip
    add("--guide-codec", metavar="CODEC", help="another codec of the same latent space, for small latents and guides")
    add(
        "--guides", nargs="+", default=["latent", "image"], metavar="KIND",
        help="what guides are encoded from: latent (the decoded small latent), image (the small picture), enlarged "
        "(the decoded small latent by --upscale-model); several can be named",
    )  # fmt: skip
    add("--scale", type=int, default=2, metavar="S", help="upscale factor to train for (default 2)")
    add("--out", type=Path, required=True, metavar="FOLDER", help="folder of the shards")
    add("--no-mirror", dest="mirror", action="store_false", help="no mirrored copies")
    add(
        "--reduce", type=float, nargs="+", default=[1.0], metavar="N",
        help="divide the photographs' sides by N; several numbers make several copies, such as 1 2 (default 1)",
    )  # fmt: skip
    add("--side", type=int, default=0, metavar="PIXELS", help="cut a random square of this side out of each copy")
    add("--cuts", type=int, default=1, metavar="N", help="squares of each copy (default 1)")
    add("--limit", type=int, metavar="N", help="only the first N views")
    add("--degrade", action="store_true", help="degrade the small pictures by blur, noise and JPEG")
    add(
        "--boosted", metavar="NAME|FILE",
        help="small latents are results of this model, as in a second stage (with --guides latent)",
    )  # fmt: skip
    add("--disturb", action="store_true", help="disturb the small latents a little (with --guides latent)")
    add(
        "--teacher", metavar="builtin|FILE",
        help="the ground truth is what this upscale model makes of the small latents, decoded",
    )  # fmt: skip
    add("--no-restore", dest="restore", action="store_false", help="keep the teacher's own tones")
    add(
        "--upscale-model", metavar="builtin|FILE",
        help="the upscale model of the guides `enlarged`; with --images, of the stage before, as in a second stage",
    )  # fmt: skip
    add("--images", action="store_true", help="images in the place of latents, for train-upscale-model")
    add("--seed", type=int, default=0, help="of the photographs' order, degradations and disturbances (default 0)")
    add_device(parser)
    add("--bf16", action="store_true", help="compute in bfloat16, twice as fast where the processor has it")
    parser.set_defaults(run=run, stopped=CONTINUES)


def run(args: argparse.Namespace) -> int:
    import torch

    from ..codecs.kl import open_codec
    from ..errors import require
    from ..fallback import move
    from ..files.checkpoint import describe, load_model
    from ..files.upscale_model import identity, load_upscale_model
    from ..training.data.encode import ShardMaker
    from ..training.data.encoding import Encoding
    from ..training.data.photos import find_photos, plan_views
    from ..training.progress import ProgressLog
    from .device import choose_device
    from .processes import share

    require(args.limit is None or args.limit > 0, "limit", args.limit, "a whole number above 0")
    device, dtype = choose_device(args.device), torch.bfloat16 if args.bf16 else torch.float32
    codec = move(open_codec(args.codec), device, dtype)
    guide_codec = move(open_codec(args.guide_codec, codec.family), device, dtype) if args.guide_codec else codec
    photos = find_photos(args.photos)
    views = plan_views(
        photos, seed=args.seed, mirror=args.mirror, reduce=args.reduce, side=args.side, cuts=args.cuts
    )  # fmt: skip
    views = views[: args.limit]
    model = load_model(args.boosted).to(device) if args.boosted else None
    teacher = load_upscale_model(args.teacher, device, dtype) if args.teacher else None
    upscale_model = load_upscale_model(args.upscale_model, device, dtype) if args.upscale_model else None

    def named(name: str | None) -> str:
        """An upscale model's name and hash, which tells two of one name apart."""
        stem, digest = identity(name) if name else ("", "")
        return f"{stem} {digest[:16]}" if name else ""

    how = Encoding(
        scale=args.scale,
        guides=tuple(args.guides),
        guide_codec=Path(args.guide_codec).stem if args.guide_codec else "",
        degrade=args.degrade,
        seed=args.seed,
        codec=Path(args.codec).stem,
        # The hash tells two models of one name apart.
        boosted=f"{model.spec.name} {describe(args.boosted)['sha256'][:16]}" if model else "",
        disturb=args.disturb,
        teacher=named(args.teacher),
        restore=args.restore,
        upscale_model=named(args.upscale_model),
        images=args.images,
    )
    maker = ShardMaker(
        views, how, codec, args.out, guide_codec=guide_codec, model=model, teacher=teacher,
        upscale_model=upscale_model, device=device,
    )  # fmt: skip
    try:
        maker.make(share(maker.shards), ProgressLog("views"))
    finally:
        for sentence in maker.skipped:
            print(f"skipped: {sentence}", file=sys.stderr)
    print(f"{len(views)} views, {len(maker.skipped)} skipped: {args.out}")
    return 0
