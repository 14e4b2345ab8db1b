"""A real AUTOMATIC1111 or Forge as a child process, and requests to its API."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from .marked import KINDS
from .server import PACK, Server, free_port

RUN_SECONDS = 600
# Each host is given those that it knows.
QUIET = (
    "--skip-prepare-environment", "--skip-torch-cuda-test", "--skip-python-version-check", "--skip-version-check",
    "--no-hashing", "--no-download-sd-model", "--do-not-download-clip", "--disable-console-progressbars",
)  # fmt: skip
# The options for the CPU in float32: of Forge and its kin, of Forge Neo, of AUTOMATIC1111.
ON_CPU = (("--always-cpu", "--all-in-fp32"), ("--cpu", "--force-fp32"), ("--use-cpu", "all", "--no-half"))
LISTS_OF_OPTIONS = ("modules/cmd_args.py", "backend/args.py", "ldm_patched/modules/args_parser.py")
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "SD_WEBUI_RESTARTING": "1",  # so that it opens no browser
}

# Where hosts load FLUX.1, Chroma and SD3 in the way that `few_layers` knows: Forge, and SD3 alone, AUTOMATIC1111.
FORGES, AUTOMATIC1111S = "backend/diffusion_engine/chroma.py", "modules/models/sd3/sd3_cond.py"

UPSCALER, BROKEN_UPSCALER = "tiny_4x", "broken_4x"  # upscalers of the host by files of ours
COLOUR = (160, 120, 80)  # what `UPSCALER` makes of any image, nearly

Pixels = np.ndarray[Any, np.dtype[np.int64]]


@dataclass
class Made:
    """A request's images (height, width, 3) without their grid, and their infotexts."""

    images: list[Pixels]
    infotexts: list[str]


# The accordion's values without an upscale model.
PLAIN = ("Automatic", -1, "euler", "auto", "auto", False, 0, "None")


def accordion(*args: Any) -> dict[str, Any]:
    """The accordion's values in a request: model, noise step, solver, guide, tile, refine, strength, upscale model."""
    return {"alwayson_scripts": {"FMBoost": {"args": list(args)}}}


class Webui(Server):
    """A host with a data directory of its own that holds only this extension and the probe."""

    said_at_the_end = "Startup time"  # Forge takes requests while it still makes the scripts' usual arguments

    def __init__(self, host: Path, python: str, base: Path, checkpoint: str) -> None:
        self.base, self.is_forge, port = base, (host / "modules_forge").exists(), free_port()
        extensions = base / "extensions"
        extensions.mkdir(parents=True)
        ours = extensions / "FMBoost"
        ours.mkdir()
        for part in ("fmboost_core", "fmboost_webui", "scripts", "metadata.ini", "style.css"):
            (ours / part).symlink_to(PACK / part)
        models = base / "models" / "fmboost" / "sub"
        models.mkdir(parents=True)
        for name in ("own", "vanishing"):
            shutil.copy(PACK / "fmboost_core/weights/models/sd15-x2.safetensors", models / f"{name}.safetensors")
        (models / "broken.safetensors").write_bytes(b"none")
        upscalers = base / "models" / "ESRGAN"
        upscalers.mkdir()
        # AUTOMATIC1111 takes PyTorch's newer files for harmful.
        torch.save(esrgan(), upscalers / f"{UPSCALER}.pth", _use_new_zipfile_serialization=False)
        (upscalers / f"{BROKEN_UPSCALER}.pth").write_bytes(b"none")
        self.kinds = KINDS if (host / FORGES).exists() else ("sd3",) if (host / AUTOMATIC1111S).exists() else ()
        for name in ("probe", "few_layers") if self.kinds else ("probe",):
            shutil.copytree(Path(__file__).with_name(name), extensions / name)
        known = "".join((host / path).read_text("utf-8") for path in LISTS_OF_OPTIONS if (host / path).is_file())
        quiet = [option for option in QUIET if f'"{option}"' in known]
        cpu = next(options for options in ON_CPU if f'"{options[0]}"' in known)
        (base / "models/Stable-diffusion").mkdir()  # not every host has an option for one file
        (base / "models/Stable-diffusion" / Path(checkpoint).name).symlink_to(Path(checkpoint).resolve())
        where = ("--api", "--server-name", "127.0.0.1", "--port", port, "--data-dir", base)
        command = [python, "launch.py", *quiet, *cpu, "--gradio-allowed-path", host, *where]
        super().__init__(command, host, base / "log.txt", port, "/sdapi/v1/samplers", **OFFLINE)
        # The usual preview of some hosts downloads a network.
        self.post("/sdapi/v1/options", {"show_progress_type": "Approx cheap"}, RUN_SECONDS)

    def txt2img(self, **options: Any) -> Made:
        """An image of 64x64 pixels from one step, upscaled by FMBoost without an upscale model.

        options: further fields of the request.
        """
        request = {
            "prompt": "a cup", "seed": 5, "steps": 1, "width": 64, "height": 64, "cfg_scale": 1,
            "sampler_name": "Euler a", "enable_hr": True, "hr_upscaler": "FMBoost 2x", "hr_scale": 2,
            "denoising_strength": 0.5, **accordion(*PLAIN),
        }  # fmt: skip
        return self.ask("/sdapi/v1/txt2img", request | options)

    def ask(self, path: str, request: dict[str, Any]) -> Made:
        answer = self.post(path, request, RUN_SECONDS)
        images = [pixels_of(text) for text in answer["images"]]
        info = json.loads(answer["info"])
        grids = info.get("index_of_first_image", 0)
        return Made(images[grids:], info["infotexts"][grids:])


def esrgan(features: int = 4) -> dict[str, torch.Tensor]:
    """The weights of a small network of ESRGAN's architecture, which nearly makes `COLOUR` four times as large."""
    grown, generator = 32, torch.Generator().manual_seed(0)  # the architecture fixes the growth
    shapes = {"conv_first": (3, features), "trunk_conv": (features, features), "conv_last": (features, 3)}
    shapes |= dict.fromkeys(("upconv1", "upconv2", "HRconv"), (features, features))
    for block in ("RDB1", "RDB2", "RDB3"):
        for i in range(1, 6):
            widths = features + (i - 1) * grown, features if i == 5 else grown
            shapes[f"RRDB_trunk.0.{block}.conv{i}"] = widths
    weights = {}
    for name, (before, after) in shapes.items():
        weights[f"{name}.weight"] = torch.randn(after, before, 3, 3, generator=generator) * 0.05
        weights[f"{name}.bias"] = torch.zeros(after)
    weights["conv_last.bias"] = torch.tensor(COLOUR[::-1]) / 255  # the hosts give it its channels as BGR
    return weights


def pixels_of(text: str) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")).astype(np.int64)


def as_text(image: Pixels) -> str:
    file = io.BytesIO()
    Image.fromarray(image.astype(np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def difference(one: Pixels, other: Pixels) -> int:
    """The largest difference of two images, 0 to 255."""
    assert one.shape == other.shape, (one.shape, other.shape)
    return int(abs(one - other).max())


def found_in_environment() -> Sequence[str] | None:
    """The host's checkout, its interpreter and a checkpoint, where the environment names all three."""
    values = [os.environ.get(name) for name in ("WEBUI_PATH", "WEBUI_PYTHON", "WEBUI_CHECKPOINT")]
    return [value for value in values if value] if all(values) else None
