"""The pack on ComfyUI's page, in a real Chromium: workflows, the line on the nodes, help, templates, a run."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from fmboost_core import load_model
from fmboost_core.files.checkpoint import save_model
from fmboost_core.model import Model
from fmboost_core.sampling.options import BEHIND_BUNDLED

from .browser import CLASSIC, NEW, PICTURES_LOADED, Frontend, chromium
from .comfyui import ComfyUI
from .server import PACK, Refused

if TYPE_CHECKING:
    from playwright.sync_api import Browser

WORKFLOWS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (PACK / "workflows").glob("*.json")}
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in (PACK / "web/docs").glob("*.md")}
PICTURE = "example.png"  # what the workflow for pictures loads; every ComfyUI comes with one
PICTURE_SIZE = (96, 64)
ONE_STAGE = "512x512 → 1024x1024, 1 stage, 1 evaluation"
ALONE = "by the upscale model alone"
TO_1K, TO_2K = f"512x512 → 1024x1024, {ALONE}", f"1024x1024 → 2048x2048, {ALONE}"
LINES = {
    "cascade_2k": ("FMBoostUpscale", f"256x256 → 2048x2048, {ALONE}"),
    "flux_2k": ("FMBoostUpscale", TO_2K),
    "hires_fix_replacement": ("FMBoostUpscale", TO_1K),
    "image_upscale": ("FMBoostUpscaleImage", f"96x64 → 192x128, {ALONE}"),
    "lcm_1k": ("FMBoostUpscale", TO_1K),
    "sd15_1k": ("FMBoostPSUUpsample", "512x512 → 1024x1024"),
    "sd15_1k_fast": ("FMBoostUpscale", ONE_STAGE),
    "sd15_256_to_1k": ("FMBoostUpscale", f"256x256 → 1024x1024, {ALONE}"),
    "sd35_2k": ("FMBoostUpscale", TO_2K),
    "sdxl_2k": ("FMBoostUpscale", TO_2K),
    "trajectory": ("FMBoostPSUUpsample", "512x512 → 1024x1024"),
    "zimage_2k": ("FMBoostUpscale", TO_2K),
}
READABLE = 0.54  # the zoom at which a template opens in a window of 1600x1000
LANGUAGE = "zh"
NOTE_TEXT = "(id) => app.graph.getNodeById(id).widgets[0].value"
WARNING = "flux1-x2 was trained at noise step 100, not 800; expect artefacts."
BLUEPRINT = next((PACK / "subgraphs").glob("*.json")).stem
TINY_CHECKPOINT = "sd3.5_large_fp8_scaled.safetensors"  # made from the host's own classes
# A loader before the blueprint's node and a save node behind it, with a small size and few steps.
WIRE = """([checkpoint, model]) => {
    const node = app.graph.nodes.find((node) => node.isSubgraphNode?.())
    const add = (type, x, y) => {
        const made = LiteGraph.createNode(type)
        app.graph.add(made)
        made.pos = [x, y]
        return made
    }
    const [x, y] = node.pos
    const loader = add('CheckpointLoaderSimple', x - 450, y), save = add('SaveImage', x + 500, y)
    for (const name of ['model', 'clip', 'vae']) {
        const output = loader.outputs.findIndex((slot) => slot.type === name.toUpperCase())
        loader.connect(output, node, node.inputs.findIndex((slot) => slot.name === name))
    }
    node.connect(0, save, 0)
    loader.widgets.find((widget) => widget.name === 'ckpt_name').value = checkpoint
    const values = { width: 64, height: 64, steps: 1, cfg: 1, sampler_name: 'euler', scheduler: 'simple', cfm: model }
    for (const [name, value] of Object.entries(values)) {
        node.widgets.find((widget) => widget.name === name).value = value
    }
    return String(save.id)
}"""
SHOW_PREVIEWS = {"KSampler", "FMBoostCFMSample", "FMBoostUpscale", "FMBoostUpscaleImage"}
STRONG = {"FMBoostCFMSample", "FMBoostUpscale", "FMBoostUpscaleImage"}  # with the widget strength
OWN = "the model's own: nfe 1, noise_step 100"  # of flux1-x2, where a strength is given
OWN_NFE = "the model's own: nfe 1"  # where the noise step is given, too
PREVIEW_PIXELS = 250  # how much taller a node becomes when a preview is shown on it


def nodes_of(name: str) -> list[dict[str, Any]]:
    return WORKFLOWS[name]["nodes"]


def own_numbers(name: str, node: str) -> list[str]:
    """The line that tells the numbers of the template's model, on a node that asks for the model's own."""
    twin = json.loads((PACK / "tests/workflows" / f"{name}.api.json").read_text(encoding="utf-8"))
    (loader,) = (entry for entry in nodes_of(name) if entry["type"] == "FMBoostLoadCFM")
    spec, asked = load_model(loader["widgets_values"][0]).spec, twin[node]["inputs"]
    own = {"nfe": (0, spec.nfe), "noise_step": (-1, spec.noise_step)}  # the widget's value, and what it stands for
    told = [f"{widget} {number}" for widget, (value, number) in own.items() if asked.get(widget) == value]
    guided = twin[asked["guide"][0]]["inputs"] if "guide" in asked else asked
    if is_alone(name, node):
        return []
    strength = BEHIND_BUNDLED.strength if guided.get("method") == "auto" and spec.guide == "psu" else spec.strength
    if twin[node]["class_type"] in STRONG and strength != 1:  # the templates leave the widget out
        told.append(f"strength {strength:g}")
    return [f"the model's own: {', '.join(told)}"] if told else []


def is_alone(name: str, node: str) -> bool:
    """Whether a template's node makes a picture by the bundled upscale model alone."""
    twin = json.loads((PACK / "tests/workflows" / f"{name}.api.json").read_text(encoding="utf-8"))
    (loader,) = (entry for entry in nodes_of(name) if entry["type"] == "FMBoostLoadCFM")
    asked, guide = twin[node]["inputs"], load_model(loader["widgets_values"][0]).spec.guide
    latent_taken = any([node, 0] == value for other in twin.values() for value in other["inputs"].values())
    pictured = {"FMBoostUpscaleImage": True, "FMBoostUpscale": asked.get("decode", False) and not latent_taken}
    kind = twin[node]["class_type"]
    return pictured.get(kind, False) and asked.get("method") == "auto" and guide == "psu"


def workflow_with(kind: str) -> str:
    return next(name for name in sorted(WORKFLOWS) if any(node["type"] == kind for node in nodes_of(name)))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def host(comfyui: ComfyUI) -> Iterator[ComfyUI]:
    """With a picture, and with the names of the workflows' models, which the page looks for: nothing is missing."""
    models = [m for name in WORKFLOWS for node in nodes_of(name) for m in node["properties"].get("models", [])]
    named = {comfyui.base / "models" / model["directory"] / model["name"] for model in models}
    made = [comfyui.base / "input" / PICTURE, *(path for path in named if not path.exists())]
    for path in made[1:]:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    Image.linear_gradient("L").resize(PICTURE_SIZE).convert("RGB").save(made[0])
    yield comfyui
    for path in made:
        path.unlink()


@pytest.fixture(scope="module", params=[CLASSIC, NEW])
def page(request: pytest.FixtureRequest, browser: Browser, host: ComfyUI) -> Iterator[Frontend]:
    page = Frontend(browser, host, request.param)
    if not page.offers(request.param):
        page.close()
        pytest.skip("this frontend does not offer the new canvas yet")
    yield page
    page.close()


@pytest.fixture(scope="module")
def tiny_checkpoint(host: ComfyUI) -> str:
    """A checkpoint of SD3.5 with two layers, where the host serves blueprints."""
    try:
        blueprints = host.get("/api/global_subgraphs")
    except Refused:
        pytest.skip("this ComfyUI has no blueprints of packs, and ignores ours")
    assert [entry["name"] for entry in blueprints.values() if entry["source"] == "custom_node"] == [BLUEPRINT]
    script, name = Path(__file__).with_name("tiny_models.py"), f"checkpoints/{TINY_CHECKPOINT}"
    command = [os.environ["COMFYUI_PYTHON"], script, os.environ["COMFYUI_PATH"], host.base / "models", name]
    made = subprocess.run(command, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr[-2000:]
    return TINY_CHECKPOINT


@pytest.fixture(autouse=True)
def no_errors_of_ours(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "page" in request.fixturenames:
        errors = request.getfixturevalue("page").errors
        said = errors.copy()
        errors.clear()
        assert not said


def check_inside(face: dict[str, Any], page: Frontend, node: str) -> None:
    """The text lies on its node, not below or beside it."""
    left, top, right, bottom = face["box"]
    outer = page.rectangle(node)
    assert right - left > 100 and bottom - top > 10, face
    assert outer[0] <= left and outer[1] <= top and right <= outer[2] and bottom <= outer[3], (face, outer)
    assert face["home"] == (node if page.canvas == NEW else None)


def check_help(page: Frontend, node: str, text: str) -> None:
    """The help that the page shows of a node is this text, with all rows and pictures, and without markup."""
    panel = page.help(node)
    for level, title in re.findall(r"^(#+) (.+)$", text, re.MULTILINE):
        panel.get_by_role("heading", name=title, exact=True, level=len(level)).wait_for()
    assert panel.locator("tbody tr").count() == len(re.findall(r"^\| `", text, re.MULTILINE))
    pictures = re.findall(r"!\[", text)
    assert panel.locator("img").count() == len(pictures)
    page.wait_until(PICTURES_LOADED, panel)
    shown = panel.inner_text()
    assert "`" not in shown and "**" not in shown and "](" not in shown


def touching(nodes: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """The nodes that lie on others, or would with a preview on them."""

    def meet(a: dict[str, Any], b: dict[str, Any]) -> bool:
        (ax, ay, aw, ah), (bx, by, bw, bh) = a["box"], b["box"]
        ah, bh = (h + PREVIEW_PIXELS * (n["type"] in SHOW_PREVIEWS) for h, n in ((ah, a), (bh, b)))
        return ax < bx + bw and bx < ax + aw and ay < by + bh and by < ay + ah

    return [(a["type"], b["type"]) for a, b in combinations(nodes, 2) if meet(a, b)]


def test_a_missing_node_would_be_noticed(page: Frontend) -> None:
    graph = copy.deepcopy(WORKFLOWS["image_upscale"])
    next(node for node in graph["nodes"] if node["type"] == "FMBoostUpscaleImage")["type"] = "FMBoostNowhere"
    page.load(graph, "broken")
    assert page.unknown() == ["FMBoostNowhere"]
    assert any("FMBoostNowhere" in text for text in page.complaints())
    page.errors.clear()
    page.dismiss()


@pytest.mark.parametrize("name", sorted(WORKFLOWS))
def test_a_workflow_opens_and_says_what_it_will_make(page: Frontend, name: str) -> None:
    page.load(WORKFLOWS[name], name)
    assert page.complaints() == page.unknown() == []
    wanted = {(str(node["id"]), node["type"]) for node in nodes_of(name)}
    assert {(node["id"], node["type"]) for node in page.nodes()} == wanted
    kind, line = LINES[name]
    node = page.id_of(kind)
    assert page.zoom() > READABLE
    page.centre(node)
    check_inside(page.wait_for_lines(node, line, *own_numbers(name, node)), page, node)
    assert touching(page.nodes()) == []
    assert page.behind() == []
    note = next(node for node in nodes_of(name) if node["type"] == "MarkdownNote")["widgets_values"][0]
    sizes, promised = re.findall(r"\d+x\d+", line), re.findall(r"\d+x\d+", note)
    assert not promised or {sizes[0], sizes[-1]} <= set(promised)
    assert page.complaints() == page.unknown() == []


def test_what_is_typed_changes_the_line(page: Frontend) -> None:
    page.load(WORKFLOWS["lcm_1k"], "lcm_1k")
    node = page.id_of("FMBoostUpscale")
    page.centre(node)
    page.wait_for_lines(node, TO_1K)
    page.type_into(node, "strength", "0.1")
    page.wait_for_lines(node, ONE_STAGE, "the model's own: nfe 1, noise_step 400")
    page.type_into(node, "scale", "4")
    page.wait_for_lines(node, "512x512 → 2048x2048, 1 stage, 1 evaluation", "the model's own: nfe 1, noise_step 400")
    page.type_into(node, "nfe", "4")
    page.wait_for_lines(node, "512x512 → 2048x2048, 1 stage, 4 evaluations", "the model's own: noise_step 400")
    page.type_into(page.id_of("EmptyLatentImage"), "width", "768")
    page.wait_for_lines(node, "768x512 → 3072x2048, 1 stage, 4 evaluations", "the model's own: noise_step 400")
    page.type_into(node, "noise_step", "300")
    page.wait_for_lines(node, "768x512 → 3072x2048, 1 stage, 4 evaluations")


def test_another_models_numbers_change_the_line(page: Frontend, host: ComfyUI) -> None:
    """The page asks the host what it does not know yet."""
    model = load_model("sd15-x2")
    path = host.base / "models/fmboost/four.safetensors"
    save_model(Model(replace(model.spec, name="four", scale=4, nfe=2), model.network), path)
    try:
        graph = copy.deepcopy(WORKFLOWS["lcm_1k"])
        loader = next(node for node in graph["nodes"] if node["type"] == "FMBoostLoadCFM")
        loader["widgets_values"][0] = path.name
        page.load(graph, "four")
        node = page.id_of("FMBoostUpscale")
        page.centre(node)
        page.type_into(node, "scale", "4")
        page.type_into(node, "strength", "0.1")
        own = "the model's own: nfe 2, noise_step 400"
        page.wait_for_lines(node, "512x512 → 2048x2048, 1 stage, 2 evaluations", own)
        page.type_into(node, "nfe", "4")
        own = "the model's own: noise_step 400"
        page.wait_for_lines(node, "512x512 → 2048x2048, 1 stage, 4 evaluations", own)
    finally:
        path.unlink()


@pytest.mark.parametrize("kind", sorted(PAGES))
def test_the_help_of_a_node_is_ours(page: Frontend, kind: str) -> None:
    name = workflow_with(kind)
    page.load(WORKFLOWS[name], name)
    node = page.id_of(kind)
    page.centre(node)
    check_help(page, node, PAGES[kind])


def test_the_templates_have_pictures_and_open(page: Frontend) -> None:
    page.load(WORKFLOWS["lcm_1k"], "lcm_1k")
    dialog = page.templates("FMBoost")
    for name in sorted(WORKFLOWS):
        card = dialog.get_by_test_id(f"template-workflow-{name}")
        card.scroll_into_view_if_needed()
        card.locator("img").first.wait_for()
        page.wait_until(PICTURES_LOADED, card)
    dialog.get_by_test_id("template-workflow-image_upscale").click()
    dialog.wait_for(state="hidden")
    page.page.wait_for_function("() => app.graph.nodes.some((node) => node.type === 'FMBoostUpscaleImage')")
    page.wait_for_lines(page.id_of("FMBoostUpscaleImage"), LINES["image_upscale"][1])
    assert page.complaints() == []


@pytest.mark.parametrize("words", ["latent upscale", "hires fix", "super resolution"])
def test_a_search_for_an_upscaler_finds_ours(page: Frontend, host: ComfyUI, words: str) -> None:
    if not host.get("/object_info/FMBoostUpscale")["FMBoostUpscale"].get("search_aliases"):
        pytest.skip("this ComfyUI knows no other words for a node")
    page.library(words).filter(has_text="FMBoost Upscale").first.wait_for()


def test_rare_widgets_are_folded_away(page: Frontend, host: ComfyUI) -> None:
    """By the newer canvas of a newer host; they keep their values, and a button shows them."""
    entries = host.get("/object_info/FMBoostUpscale")["FMBoostUpscale"]["input"]
    folded = {name for part in entries.values() for name, entry in part.items() if entry[1].get("advanced")}
    if not folded or page.canvas != NEW:
        pytest.skip("this page folds no widgets away")
    assert folded == {"solver", "method", "tile", "tiled_vae", "tileable"}
    page.load(WORKFLOWS["sdxl_2k"], "sdxl_2k")
    node = page.id_of("FMBoostUpscale")
    page.centre(node)
    shown = page.page.locator(f'[data-node-id="{node}"]')
    shown.get_by_text("noise_step", exact=False).first.wait_for()
    assert not shown.get_by_text("tiled_vae", exact=True).is_visible()
    shown.get_by_text("Show advanced inputs").click()
    shown.get_by_text("tiled_vae", exact=True).wait_for()


def test_the_blueprint_is_dragged_in_and_runs(page: Frontend, host: ComfyUI, tiny_checkpoint: str) -> None:
    page.load({"nodes": [], "links": [], "version": 0.4}, "empty")
    item = page.library("FMBoost").filter(has_text=BLUEPRINT).last
    item.wait_for()
    item.drag_to(page.page.locator("canvas").first, target_position={"x": 800, "y": 250})
    page.page.wait_for_function("() => app.graph.nodes.some((node) => node.isSubgraphNode?.())")
    save = page.page.evaluate(WIRE, [tiny_checkpoint, "sd3-x2"])
    assert page.run() == ("execution_success", "")
    saved = page.saved(save)[0]
    with Image.open(host.base / saved["type"] / saved["subfolder"] / saved["filename"]) as picture:
        assert picture.size == (128, 128)
    assert page.complaints() == page.unknown() == []


def test_a_picture_is_enlarged_by_the_run_button(page: Frontend, host: ComfyUI) -> None:
    """Without a model file. Then by the flow, with too much noise, which the node warns of, and without again."""
    page.load(WORKFLOWS["image_upscale"], "image_upscale")
    node, line = page.id_of("FMBoostUpscaleImage"), LINES["image_upscale"][1]
    page.centre(node)
    assert page.run() == ("execution_success", "")
    saved = page.saved(page.id_of("SaveImage"))[0]
    with Image.open(host.base / saved["type"] / saved["subfolder"] / saved["filename"]) as picture:
        assert picture.size == (2 * PICTURE_SIZE[0], 2 * PICTURE_SIZE[1])
    page.wait_for_lines(node, line)
    line = line.replace(ALONE, "1 stage, 1 evaluation")
    page.type_into(node, "strength", "0.1")
    page.wait_for_lines(node, line, OWN)
    page.type_into(node, "noise_step", "800")
    assert page.run() == ("execution_success", "")
    warned = page.wait_for_lines(node, line, OWN_NFE, WARNING)
    check_inside(warned, page, node)
    page.load(WORKFLOWS["image_upscale"], "image_upscale")  # a new node; the host has its result and does not run it
    node = page.id_of("FMBoostUpscaleImage")
    page.centre(node)
    page.type_into(node, "strength", "0.1")
    page.type_into(node, "noise_step", "800")
    assert page.run() == ("execution_success", "")
    page.wait_for_lines(node, line, OWN_NFE, WARNING)
    page.type_into(node, "noise_step", "-1")
    assert page.run() == ("execution_success", "")
    page.wait_for_lines(node, line, OWN)


def test_another_language(browser: Browser, host: ComfyUI) -> None:
    """Titles and names of widgets are those of locales/, and so are the lines and warnings on the nodes.

    Help, a template's note and its titles are in the language too.
    """
    words = json.loads((PACK / "locales" / LANGUAGE / "nodeDefs.json").read_text(encoding="utf-8"))
    page = Frontend(browser, host, language=LANGUAGE)
    page.load(WORKFLOWS["sd15_1k"], "sd15_1k")
    ours = [node for node in page.nodes() if node["type"] in words]
    assert len(ours) == 5
    told = json.loads((PACK / "locales" / LANGUAGE / "main.json").read_text(encoding="utf-8"))["fmboost"]["templates"]
    note = page.id_of("MarkdownNote")
    assert page.page.evaluate(NOTE_TEXT, note) == told["notes"]["sd15_1k"]["text"]
    titles = [node["title"] for node in page.nodes()]
    assert set(titles) & set(told["titles"]) == set() and set(titles) >= {"说明", "提示词"}
    for node in ours:
        said = words[node["type"]]
        assert node["title"] == said["display_name"]
        names = {key: entry["name"] for key, entry in said["inputs"].items() if key in node["labels"]}
        assert names == {key: node["labels"][key] for key in names}
        assert names or node["type"] == "FMBoostRestore"  # which has no widget
    show = "([id, text]) => app.graph.getNodeById(id).onExecuted({ text: [text] })"
    warned = page.id_of("FMBoostNoiseAugment")
    page.page.evaluate(show, [warned, WARNING])
    page.wait_for_lines(warned, "模型自己的值：噪声步 400", "flux1-x2 训练时的噪声步为 100，不是 800；可能出现瑕疵。")
    page.load(WORKFLOWS["sdxl_2k"], "sdxl_2k")
    upscale = page.id_of("FMBoostUpscale")
    page.wait_for_lines(upscale, "1024x1024 → 2048x2048, 仅由放大模型完成")
    page.load(WORKFLOWS["sd15_1k"], "sd15_1k")
    page.centre(ours[0]["id"])
    text = (PACK / "web/docs" / ours[0]["type"] / f"{LANGUAGE}.md").read_text(encoding="utf-8")
    check_help(page, ours[0]["id"], text)
    assert page.errors == []
    page.close()
