"""Load CFM: a model file into the host's memory management."""

from __future__ import annotations

from comfy_api.latest import io

from . import host
from .inputs import CATEGORY, CFM


class LoadCFM(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        host.register_folder()
        return io.Schema(
            node_id="FMBoostLoadCFM",
            display_name="Load CFM",
            category=CATEGORY,
            description="Loads the small network that carries a small latent to a large one.",
            inputs=[
                io.Combo.Input(
                    "model",
                    options=host.model_choices(),
                    tooltip="Bundled models, then the files of models/fmboost. Take one for your checkpoint's family: "
                    "sd15 for Stable Diffusion 1.5, sdxl for SDXL.",
                ),
                io.Combo.Input(
                    "dtype",
                    options=["auto", *host.DTYPES],
                    default="auto",
                    tooltip="Type of the weights. auto: what suits the device.",
                ),
            ],
            outputs=[CFM.Output(display_name="CFM")],
        )

    @classmethod
    def execute(cls, model: str, dtype: str) -> io.NodeOutput:
        return io.NodeOutput(host.load_cfm(model, dtype))

    @classmethod
    def fingerprint_inputs(cls, model: str, dtype: str) -> tuple[str, int, str]:
        """A replaced file is loaded again."""
        path = host.model_path(model)
        return str(path), path.stat().st_mtime_ns, dtype
