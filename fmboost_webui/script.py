"""The accordion in txt2img, the line under the upscaler's dropdown, and the host's calls before a job."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr
from modules import processing, scripts

from fmboost_core.errors import FMBoostError
from fmboost_core.sampling.guide import UPSAMPLERS
from fmboost_core.sampling.solvers import SOLVERS
from fmboost_core.sampling.tiling import TILE_CHOICES

from . import hires, host
from .options import AUTOMATIC, INFOTEXT_KEYS, OWN_NOISE_STEP, choose_model, describe, entries, from_infotext

TITLE = "FMBoost"
# What the line depends on, by the host's names: width, height, upscaler, steps, scale, and the two exact sides.
WATCHED = (
    "txt2img_width", "txt2img_height", "txt2img_hr_upscaler", "txt2img_hires_steps", "txt2img_hr_scale",
    "txt2img_hr_resize_x", "txt2img_hr_resize_y",
)  # fmt: skip
LINE_AFTER = "txt2img_denoising_strength"  # the last one of the dropdown's row


class FMBoostScript(scripts.Script):
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
        with gr.Accordion(TITLE, open=False, elem_id="fmboost_options"):
            gr.HTML(
                "For Hires. fix with <b>FMBoost</b> as its upscaler. Hires steps are then the evaluations; "
                "0: as many as the model wants."
            )
            with gr.Row():
                model = gr.Dropdown(
                    [AUTOMATIC, *(m.name for m in hires.MODELS)], value=AUTOMATIC, label="Model",
                    elem_id="fmboost_model",
                )  # fmt: skip
                solver = gr.Dropdown(list(SOLVERS), value="euler", label="Solver", elem_id="fmboost_solver")
            with gr.Row():
                guide = gr.Dropdown(list(UPSAMPLERS), value="psu", label="Guide method", elem_id="fmboost_guide")
                tile = gr.Dropdown(list(TILE_CHOICES), value="auto", label="Tiles (latents)", elem_id="fmboost_tile")
            noise_step = gr.Slider(
                OWN_NOISE_STEP, 999, value=OWN_NOISE_STEP, step=1, elem_id="fmboost_noise_step",
                label="Noise step: less is truer, more draws more (SD1.x, SD2.x: 100 to 700; -1: the model's own)",
            )  # fmt: skip
            refine = gr.Checkbox(
                False, label="Refine with the sampler afterwards, at the denoising strength", elem_id="fmboost_refine"
            )
        controls = {
            "model": model, "noise_step": noise_step, "solver": solver, "guide": guide, "tile": tile, "refine": refine,
        }  # fmt: skip
        self.infotext_fields = [(control, _pasted(name)) for name, control in controls.items()]
        self.paste_field_names = list(INFOTEXT_KEYS)
        self._wire(model, solver, refine)
        return list(controls.values())

    def _wire(self, *ours: Any) -> None:
        """Keep the line up to date; where the host's page is another one, there is none."""
        if self._line is None or len(self._watched) < len(WATCHED):
            return
        inputs = [*(self._watched[name] for name in WATCHED), *ours]
        for component in inputs:
            component.change(_line, inputs=inputs, outputs=[self._line], show_progress=False, queue=False)

    # --- a job

    def before_process(self, p: Any, *args: Any) -> None:
        hires.install(p, args)

    def process(self, p: Any, *_: Any) -> None:
        hires.prepare(p)


def _pasted(name: str) -> Any:
    return lambda params: from_infotext(name, params)


def _line(
    width: int, height: int, upscaler: str, steps: int, scale: float, resize_x: int, resize_y: int, wish: str,
    solver: str, refine: bool,
) -> Any:  # fmt: skip
    """The line's new state, from the page's values."""
    if upscaler not in entries(hires.MODELS):
        return gr.update(visible=False)
    # Sliders of some versions of gradio give 512.0.
    width, height, steps, resize_x, resize_y = map(int, (width, height, steps, resize_x, resize_y))
    try:
        model = choose_model(hires.MODELS, upscaler, wish, host.loaded_family())
        size, target = (width, height), _target(width, height, scale, resize_x, resize_y)
        return gr.update(visible=True, value=describe(model, size, target, steps, solver, refine))
    except FMBoostError as error:
        return gr.update(visible=True, value=f"<b>{escape(str(error))}</b>")


def _target(width: int, height: int, scale: float, resize_x: int, resize_y: int) -> tuple[int, int]:
    """Width and height that the host wants, as it counts them itself."""
    p = processing.StableDiffusionProcessingTxt2Img(
        width=width, height=height, enable_hr=True, hr_scale=scale, hr_resize_x=resize_x, hr_resize_y=resize_y
    )
    p.calculate_target_resolution()
    return hires.cut_size(p)
