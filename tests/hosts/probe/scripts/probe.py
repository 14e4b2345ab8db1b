"""An extension for the tests: it saves the latent that FMBoost's second pass got and the one that it decoded.

It also saves what `fmboost_core.boost` makes of the same latent, seed and VAE. Like other extensions, it wraps the pass
in `process`, which FMBoost has to allow.
"""

import torch
from modules import paths, scripts, shared
from safetensors.torch import save_file

from fmboost_core import boost, load_model

# The family, and the channels, scale and shift of its latents, by the checkpoint's name.
FLUX, SD15 = ("flux1", 16, 0.3611, 0.1159), ("sd15", 4, 0.18215, 0.0)
SPACES = {"flux1": FLUX, "chroma": FLUX, "sd3": ("sd3", 16, 1.5305, 0.0609)}


class PlainVAE:
    downscale_factor = 8

    def __init__(self, model):
        space = SPACES.get(model.sd_checkpoint_info.name_for_extra, SD15)
        self.family, self.channels, self.scale, self.shift = space
        parts = getattr(model, "forge_objects", None)
        self.network = parts.vae.first_stage_model if parts else model.first_stage_model
        self.decode = model.decode_first_stage

    def encode(self, pictures):
        moments, last = self.network.encoder(pictures), getattr(self.network, "quant_conv", None)
        moments = moments if last is None else last(moments)
        return (moments.chunk(2, dim=1)[0] - self.shift) * self.scale


class Probe(scripts.Script):
    def title(self):
        return "FMBoost probe"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def process(self, p, *args):
        inner = vars(p).get("sample_hr_pass")
        if inner is None:
            return

        def outer(samples, *rest):
            given, model = [], p.sd_model
            decode = model.decode_first_stage

            def watched(latents):
                given.append(latents)
                return decode(latents)

            model.decode_first_stage = watched
            try:
                return inner(samples, *rest)
            finally:
                model.decode_first_stage = decode
                self.write(p, samples, given[-1] if given else samples)

        p.sample_hr_pass = outer

    def write(self, p, small, large):
        vae, found = PlainVAE(shared.sd_model), {"small": small, "large": large}
        model = load_model(f"{vae.family}-x2")
        if large.shape != small.shape and p.hr_second_pass_steps == model.spec.nfe:
            size = (large.shape[-1] * 8, large.shape[-2] * 8)
            with torch.no_grad():
                found["wanted"] = boost(small, model, vae, size=size, seed=p.seeds)
        plain = {name: tensor.float().cpu().contiguous().clone() for name, tensor in found.items()}
        save_file(plain, f"{paths.data_path}/probe.safetensors")
