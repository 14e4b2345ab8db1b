"""Load CFM: a model file in the host's memory management."""

from __future__ import annotations

from comfy_api.latest import io

from ..fmboost_core import FAMILIES
from . import host
from .inputs import CFM
from .newer import folded, schema


def _families() -> str:
    """The families, with the beginning of their bundled models' names."""
    return ", ".join(f"{name} for {family.title}" for name, family in FAMILIES.items())


class LoadCFM(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        host.register_folder()
        return schema(
            node_id="FMBoostLoadCFM",
            display_name="FMBoost Load CFM",
            description="Loads the small network that upscales latents.",
            words=("load upscale model", "latent upscale model", "flow matching model"),
            inputs=[
                io.Combo.Input(
                    "model",
                    options=host.model_choices(),
                    tooltip="The bundled models, then the files of models/fmboost. Choose one for your checkpoint's "
                    f"family: {_families()}.",
                ),
                folded(
                    io.Combo,
                    "dtype",
                    options=["auto", *host.DTYPES],
                    default="auto",
                    tooltip="Number type of the weights. auto: what suits the device.",
                ),
            ],
            outputs=[CFM.Output(display_name="CFM")],
        )

    @classmethod
    def execute(cls, model: str, dtype: str) -> io.NodeOutput:
        return io.NodeOutput(host.load_cfm(model, dtype))

    @classmethod
    def fingerprint_inputs(cls, model: str, dtype: str) -> tuple[str, int, str]:
        """The file and its time, so that a replaced file is loaded again."""
        path = host.model_path(model)
        return str(path), path.stat().st_mtime_ns, dtype
