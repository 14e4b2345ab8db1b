"""An extension for the tests: it saves the latent that FMBoost's second pass got and the one that it decoded.

It also saves what `fmboost_core.boost` makes of the same latent, seed and VAE. Like other extensions, it wraps the pass
in `process`, which FMBoost has to allow.
"""

import torch
from modules import paths, scripts, shared
from safetensors.torch import save_file

from fmboost_core import boost, load_model


class PlainVAE:
    channels, downscale_factor = 4, 8

    def __init__(self, model):
        self.model = model

    def encode(self, pictures):
        if not hasattr(self.model, "forge_objects"):
            return self.model.scale_factor * self.model.encode_first_stage(pictures).mode()
        network = self.model.forge_objects.vae.first_stage_model
        return 0.18215 * network.quant_conv(network.encoder(pictures)).chunk(2, dim=1)[0]  # as SD1.5 has it

    def decode(self, latents):
        return self.model.decode_first_stage(latents)


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
        found, model = {"small": small, "large": large}, load_model("sd15-x2")
        if large.shape != small.shape and p.hr_second_pass_steps == model.spec.nfe:
            size = (large.shape[-1] * 8, large.shape[-2] * 8)
            with torch.no_grad():
                found["wanted"] = boost(small, model, PlainVAE(shared.sd_model), size=size, seed=p.seeds)
        plain = {name: tensor.float().cpu().contiguous().clone() for name, tensor in found.items()}
        save_file(plain, f"{paths.data_path}/probe.safetensors")
