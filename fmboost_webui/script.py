"""The script: the accordion in txt2img, the line under the upscaler's dropdown, the host's calls before a job."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import gradio as gr
from modules import processing, scripts

from fmboost_core.errors import FMBoostError
from fmboost_core.sampling.solvers import SOLVERS
from fmboost_core.sampling.tiling import TILE_CHOICES
from fmboost_core.sampling.widgets import OWN_NOISE_STEP, OWN_STRENGTH
from fmboost_core.spec import MAX_STRENGTH

from . import checkpoint, hires, upscale_model
from .models import AUTOMATIC, choose_model, entries
from .options import GUIDE_METHODS, INFOTEXT_KEYS, MAX_NOISE_STEP, WIDGETS, Options, describe, from_infotext

TITLE = "FMBoost"
# The host's components that the line depends on: width, height, upscaler, steps, scale, and the two exact sides.
WATCHED = (
    "txt2img_width", "txt2img_height", "txt2img_hr_upscaler", "txt2img_hires_steps", "txt2img_hr_scale",
    "txt2img_hr_resize_x", "txt2img_hr_resize_y",
)  # fmt: skip
LINE_AFTER = "txt2img_denoising_strength"  # the last component of the dropdown's row


class FMBoostScript(scripts.Script):
    """The host's script of FMBoost, which is always visible in txt2img."""

    def __init__(self) -> None:
        super().__init__()
        self._watched: dict[str, Any] = {}
        self._line: Any = None

    def title(self) -> str:
        return TITLE

    def show(self, is_img2img: bool) -> Any:
        return False if is_img2img else scripts.AlwaysVisible

    # --- the page

    def after_component(self, component: Any, **_: Any) -> None:
        """Remember what the line depends on, and put the line under the dropdown's row."""
        name = getattr(component, "elem_id", None)
        if name in WATCHED:
            self._watched[name] = component
        if name == LINE_AFTER and self._line is None:
            self._line = gr.HTML("", visible=False, elem_id="fmboost_line")

    def ui(self, is_img2img: bool) -> list[Any]:
        """The accordion's components, in the order of `WIDGETS`."""
        controls = _accordion()
        self.infotext_fields = [(control, _pasted(name)) for name, control in controls.items()]
        self.paste_field_names = list(INFOTEXT_KEYS)
        self._wire(*(controls[name] for name in ("model", "solver", "upsample", "refine", "upscale_model", "strength")))
        return [controls[name] for name in WIDGETS]

    def _wire(self, *ours: Any) -> None:
        """Update the line at every change. A page without the components that it depends on has no line."""
        if self._line is None or len(self._watched) < len(WATCHED):
            return
        inputs = [*(self._watched[name] for name in WATCHED), *ours]
        for component in inputs:
            component.change(_line, inputs=inputs, outputs=[self._line], show_progress=False, queue=False)

    # --- a job

    def before_process(self, p: Any, *args: Any) -> None:
        """Before the checkpoint is loaded, and before other extensions wrap the job."""
        hires.install(p, args)

    def process(self, p: Any, *_: Any) -> None:
        """When the checkpoint is loaded."""
        hires.prepare(p)


def _accordion() -> dict[str, Any]:
    """The accordion; returns its components by their names in `WIDGETS`."""
    made: dict[str, Any] = {}

    def dropdown(name: str, choices: Sequence[str], label: str, elem_id: str) -> None:
        made[name] = gr.Dropdown(list(choices), value=WIDGETS[name], label=label, elem_id=elem_id)

    with gr.Accordion(TITLE, open=False, elem_id="fmboost_options"):
        gr.HTML(
            "For Hires. fix with an <b>FMBoost</b> upscaler. Hires steps are the evaluations of the network in each "
            "stage; 0 is the model's own number."
        )
        with gr.Row():
            dropdown("model", [AUTOMATIC, *(m.name for m in hires.MODELS)], "Model", "fmboost_model")
            dropdown("solver", SOLVERS, "Solver", "fmboost_solver")
        with gr.Row():
            dropdown("upsample", GUIDE_METHODS, "Guide method", "fmboost_guide")
            dropdown("tile", TILE_CHOICES, "Tiles (latents)", "fmboost_tile")
        dropdown(
            "upscale_model", upscale_model.choices(), "Upscale model: enlarges the picture instead of interpolation",
            "fmboost_upscale_model",
        )  # fmt: skip
        made["noise_step"] = gr.Slider(
            OWN_NOISE_STEP, MAX_NOISE_STEP, value=WIDGETS["noise_step"], step=1, elem_id="fmboost_noise_step",
            label=f"Noise step: the higher it is, the more two seeds differ ({OWN_NOISE_STEP}: the model's own)",
        )  # fmt: skip
        made["strength"] = gr.Slider(
            OWN_STRENGTH, MAX_STRENGTH, value=WIDGETS["strength"], step=0.05, elem_id="fmboost_strength",
            label="Strength: more than 1 is crisper, less is softer (0: the model's own, or none with FMBoost's)",
        )  # fmt: skip
        made["refine"] = gr.Checkbox(
            WIDGETS["refine"], label="Refine with the sampler afterwards, at the denoising strength",
            elem_id="fmboost_refine",
        )  # fmt: skip
    return made


def _pasted(name: str) -> Any:
    """The host's function for a pasted infotext: from its parameters to a component's value."""
    return lambda params: from_infotext(name, params)


def _line(
    width: int, height: int, upscaler: str, steps: int, scale: float, resize_x: int, resize_y: int, wish: str,
    solver: str, upsample: str, refine: bool, enlarger: str, strength: float,
) -> Any:  # fmt: skip
    """The line's new state, from the values in the page."""
    if upscaler not in entries(hires.MODELS):
        return gr.update(visible=False)
    # Sliders give 512.0 in some versions of gradio.
    width, height, steps, resize_x, resize_y = map(int, (width, height, steps, resize_x, resize_y))
    try:
        chosen = {"solver": solver, "upsample": upsample, "refine": refine, "upscale_model": enlarger}
        options = Options.of([], chosen | {"strength": strength})
        model = choose_model(hires.MODELS, upscaler, wish, checkpoint.loaded_party())
        target = _target(width, height, scale, resize_x, resize_y)
        return gr.update(visible=True, value=describe(model, (width, height), target, options, steps))
    except FMBoostError as error:
        return gr.update(visible=True, value=f"<b>{escape(str(error))}</b>")


def _target(width: int, height: int, scale: float, resize_x: int, resize_y: int) -> tuple[int, int]:
    """(width, height) of the result in pixels, by the host's own calculation."""
    p = processing.StableDiffusionProcessingTxt2Img(
        width=width, height=height, enable_hr=True, hr_scale=scale, hr_resize_x=resize_x, hr_resize_y=resize_y
    )
    p.calculate_target_resolution()
    return hires.cropped_size(p)
