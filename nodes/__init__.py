"""The ComfyUI nodes, thin over `fmboost_core`: a schema, a conversion, a call.

`host.py` alone imports `comfy`. `inputs.py` has the shared widgets, `latents.py` and `vae.py` the host's data.
"""

from comfy_api.latest import ComfyExtension, io

from . import host
from .attention import AttentionScale
from .chain import CFMSample, NoiseAugment, PSUUpsample
from .load import LoadCFM
from .restore import Restore
from .upscale import Upscale, UpscaleImage

NODES: list[type[io.ComfyNode]] = [
    LoadCFM, PSUUpsample, NoiseAugment, CFMSample, Upscale, UpscaleImage, Restore, AttentionScale,
]  # fmt: skip


class FMBoostExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES


async def comfy_entrypoint() -> FMBoostExtension:
    """What ComfyUI calls to get the pack's nodes."""
    host.serve_facts()
    host.say_what_to_do_first()
    return FMBoostExtension()
