"""The page's arithmetic is the core's: the face of a node promises what the node then makes."""

import json
import math
import re
import shutil
import subprocess
import zlib
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from test_words import LANGUAGES, hidden_emphasis

from fmboost_core import load_model
from fmboost_core.errors import ConfigError, collected_warnings
from fmboost_core.fallback import Place, _tell
from fmboost_core.families import Party, require_same_family
from fmboost_core.files.checkpoint import read_spec
from fmboost_core.files.locate import bundled_upscale_models, find_weights
from fmboost_core.sampling.checks import check_bare_scale
from fmboost_core.sampling.options import BEHIND_BUNDLED, BEHIND_OTHERS
from fmboost_core.sampling.restore import restored
from fmboost_core.sampling.schedule import start_alpha_bar
from fmboost_core.sampling.solvers import EVALUATIONS_PER_STEP
from fmboost_core.sampling.target import Target, stage_sizes
from fmboost_core.sampling.upscaler import _to_unit
from fmboost_core.sampling.widgets import OWN_METHOD

ROOT = Path(__file__).parents[1]
WEB, LOCALES = ROOT / "web", ROOT / "locales"
STARTS = [(8, 8), (64, 96), (256, 256), (512, 512), (504, 768), (1000, 1400), (2048, 2048)]  # height, width
WISHES: list[dict[str, Any]] = [
    *({"size_by": "scale", "scale": s} for s in (1, 1.05, 1.5, 2, 2.05, 3, 4, 4.75, 8, 16)),
    *({"size_by": "megapixels", "megapixels": m} for m in (0.01, 0.26, 1, 2.07, 8.3, 100)),
    *({"size_by": "width x height", "width": w, "height": h} for w, h in product((128, 1024, 4096), (512, 2160))),
]


@pytest.fixture(scope="module")
def node() -> str:
    path = shutil.which("node")
    if path is None:
        pytest.skip("needs node to run the page's arithmetic")
    return path


def run(node: str, script: str, *modules: str) -> Any:
    """What an expression gives in which modules of `web` are known; size.js where none is named."""
    code = "\n".join((WEB / module).read_text(encoding="utf-8") for module in modules or ("size.js",))
    code = re.sub(r"^import .*$", "", code, flags=re.MULTILINE)  # they follow each other in one file
    code += f"\nconsole.log(JSON.stringify({script}))"
    # From standard input: node takes a file for a module by its name or by a package.json, which the host has not.
    command = [node, "--input-type=module", "-"]
    done = subprocess.run(command, input=code, capture_output=True, text=True, timeout=60, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def of_core(start: tuple[int, int], wish: dict[str, Any], unit: int) -> list[list[int]] | None:
    """The core's stages as [width, height], None where it refuses."""
    try:
        size = (wish["width"], wish["height"]) if "width" in wish else None
        end = Target(wish.get("scale"), size, wish.get("megapixels")).pixels(start, 2.0, unit)
    except ConfigError:
        return None
    sizes = stage_sizes(start, end, 2.0)
    return [[w, h] for h, w in (sizes if unit == 1 else [_to_unit(size, unit) for size in sizes])]


@pytest.mark.parametrize("unit", [1, 8])
def test_sizes_and_stages_are_the_cores(node: str, unit: int) -> None:
    cases = [(start, wish) for start, wish in product(STARTS, WISHES)]
    found = run(
        node,
        f"""{json.dumps(cases)}.map(([[height, width], wish]) => {{
            const start = {{width, height}}, end = targetSize(start, wish, {unit})
            return end.problem ? null : stageSizes(start, end, {unit}).map((s) => [s.width, s.height])
        }})""",
    )
    wanted = [of_core(start, wish, unit) for start, wish in cases]
    assert sum(sizes is None for sizes in wanted) > 5
    assert max(len(sizes) for sizes in wanted if sizes) >= 4
    for case, a, b in zip(cases, found, wanted, strict=True):
        assert a == b, case


def test_odd_pictures_too(node: str) -> None:
    """A picture may have any size, and its stages are exact to the pixel."""
    cases = [((h, w), s) for h, w, s in product((1, 7, 33, 97, 250), (1, 5, 641), (1.5, 2.5, 3.35, 5.5, 11.1))]
    found = run(
        node,
        f"""{json.dumps(cases)}.map(([[height, width], scale]) => {{
            const start = {{width, height}}, end = targetSize(start, {{size_by: "scale", scale}})
            return stageSizes(start, end).map((s) => [s.width, s.height])
        }})""",
    )
    assert found == [of_core(start, {"scale": scale}, 1) for start, scale in cases]


def test_halves_are_rounded_as_python_does(node: str) -> None:
    values = [0.5, 1.5, 2.5, 2.4999, 2.5001, 7.0, 1023.5, 1024.5]
    assert run(node, f"{json.dumps(values)}.map(round)") == [round(value) for value in values]


def test_stages_of_a_ratio_alone(node: str) -> None:
    ratios = [1, 1.01, 1.99, 2, 2.0000001, 2.01, 4, 4.05, 8, 16]
    wanted = [max(1, math.ceil(math.log2(ratio) - 1e-6)) for ratio in ratios]
    assert run(node, f"{json.dumps(ratios)}.map((r) => stageCount(r))") == wanted


def served() -> dict[str, Any]:
    """The texts of all languages, as the host serves them at /i18n."""
    return {path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in LOCALES.glob("*/main.json")}


def say(node: str, script: str, language: str = "en") -> Any:
    """What an expression gives that says something by `words`, the page's in a language."""
    code = f"((words) => {script})(wordsIn({json.dumps(served())}, {json.dumps(language)}))"
    return run(node, code, "size.js", "words.js")


AREA = {"size_by": "megapixels"}
FLOW = {"size_by": "scale", "scale": 2, "width": 1024, "height": 768, "megapixels": 1, "nfe": 4, "solver": "euler"}
SQUARE = {"width": 512, "height": 512}


@pytest.mark.parametrize(
    ("start", "change", "flows", "text"),
    [
        (SQUARE, {}, True, "512x512 → 1024x1024, 1 stage, 4 evaluations"),
        (SQUARE, {"scale": 4, "nfe": 1}, True, "512x512 → 1024x1024 → 2048x2048, 2 stages, 2 evaluations"),
        (SQUARE, {"nfe": 1}, True, "512x512 → 1024x1024, 1 stage, 1 evaluation"),
        (SQUARE, {"scale": 8}, False, "512x512 → 4096x4096"),
        (SQUARE, {"scale": 4, "modelScale": 4}, True, "512x512 → 2048x2048, 1 stage, 4 evaluations"),
        (SQUARE, {"scale": 4, "oneStage": True}, True, "512x512 → 2048x2048, 1 stage, 4 evaluations"),
        (None, {"scale": 8, "oneStage": True}, True, "8x, 1 stage, 4 evaluations"),
        (None, AREA | {"oneStage": True}, True, "to 1 megapixel, 1 stage, 4 evaluations"),
        (SQUARE, {"oneStage": True, "alone": True}, True, "512x512 → 1024x1024, by the upscale model alone"),
        (None, AREA | {"oneStage": True, "alone": True}, True, "to 1 megapixel, by the upscale model alone"),
        (SQUARE, {"scale": 4, "modelScale": 1}, True, "this model does not enlarge"),
        (None, {"scale": 8, "modelScale": 4}, True, "8x, 2 stages, 8 evaluations"),
        (None, {}, True, "2x, 1 stage, 4 evaluations"),
        (None, {"scale": 8}, False, "8x"),
        (None, {"size_by": "width x height"}, True, "to 1024x768, 4 evaluations a stage"),
        (None, AREA, True, "to 1 megapixel, 4 evaluations a stage"),
        (None, AREA | {"megapixels": 2.5}, False, "to 2.5 megapixels"),
        (SQUARE, {"scale": None}, True, "size known when it runs"),
        (SQUARE, {"nfe": None}, True, "512x512 → 1024x1024, 1 stage"),
        (SQUARE, {"solver": "dopri5"}, True, "512x512 → 1024x1024, 1 stage, as many evaluations as needed"),
        (SQUARE, {"solver": "rk4", "nfe": 3}, True, "512x512 → 1024x1024, but rk4 takes multiples of 4 evaluations"),
        (SQUARE, {"nfe": 0, "modelNfe": 1}, True, "512x512 → 1024x1024, 1 stage, 1 evaluation"),
        (SQUARE, {"nfe": 0, "modelNfe": 4, "scale": 3}, True, "512x512 → 888x888 → 1536x1536, 2 stages, 8 evaluations"),
        (SQUARE, {"nfe": 2, "modelNfe": 1}, True, "512x512 → 1024x1024, 1 stage, 2 evaluations"),
        (SQUARE, {"nfe": 0}, True, "512x512 → 1024x1024, 1 stage"),
        (SQUARE, {"nfe": 0, "modelNfe": 1, "solver": "heun"}, True,
         "512x512 → 1024x1024, but heun takes multiples of 2 evaluations, not the model's own 1"),
        (SQUARE, {"nfe": 0, "modelNfe": 1, "solver": "dopri5"}, True,
         "512x512 → 1024x1024, 1 stage, as many evaluations as needed"),
        (None, AREA | {"nfe": 0, "modelNfe": 1}, True, "to 1 megapixel, 1 evaluation a stage"),
        (None, AREA | {"nfe": 0}, True, "to 1 megapixel"),
        (None, AREA | {"solver": "dopri5"}, True, "to 1 megapixel"),
        (SQUARE, AREA | {"megapixels": 0.1}, True, "320x320 is smaller than the 512x512 that comes in"),
        (SQUARE, {"scale": 200}, True, "102400x102400 pixels are too many"),
    ],
)  # fmt: skip
def test_the_line_on_a_node(node: str, start: Any, change: dict[str, Any], flows: bool, text: str) -> None:
    widgets = {**FLOW, **change}
    widgets["perStep"] = EVALUATIONS_PER_STEP[widgets["solver"]]
    arguments = f"{json.dumps(start)}, {json.dumps(widgets)}, words, 8, {json.dumps(flows)}"
    assert say(node, f"summary({arguments})") == text


@pytest.mark.parametrize(
    ("widgets", "text"),
    [
        ({"nfe": 0, "modelNfe": 4, "noise_step": -1, "modelNoiseStep": 100}, "nfe 4, noise_step 100"),
        ({"nfe": 4, "modelNfe": 4, "noise_step": -1, "modelNoiseStep": 100}, "noise_step 100"),
        ({"nfe": 0, "modelNfe": 1, "noise_step": 0, "modelNoiseStep": 100}, "nfe 1"),
        ({"nfe": 2, "modelNfe": 1, "noise_step": None, "modelNoiseStep": 100}, ""),
        ({"nfe": 0, "noise_step": -1}, ""),
        ({"nfe": 0, "modelNfe": 1, "strength": 0, "modelStrength": 1.15}, "nfe 1, strength 1.15"),
        ({"nfe": 0, "modelNfe": 1, "strength": 1.4, "modelStrength": 1.15}, "nfe 1"),
        ({"nfe": 0, "modelNfe": 1, "strength": 0, "modelStrength": 1}, "nfe 1"),
        ({"nfe": 0, "modelNfe": 1, "strength": 0}, "nfe 1"),
        ({"nfe": 0, "modelNfe": 1, "strength": 0, "modelStrength": 0.05, "alone": True}, ""),
    ],
)
def test_the_models_own_numbers_are_said(node: str, widgets: dict[str, Any], text: str) -> None:
    assert say(node, f"ownNumbers({json.dumps(widgets)}, words)") == (f"the model's own: {text}" if text else "")


CASES = [
    (SQUARE, {}, True), (SQUARE, {"scale": 8}, True), (SQUARE, {"nfe": 1}, True), (SQUARE, {"modelScale": 1}, True),
    (SQUARE, {"solver": "dopri5"}, True), (SQUARE, {"solver": "rk4", "nfe": 0, "modelNfe": 3}, True),
    (SQUARE, {"scale": None}, True), (SQUARE, AREA | {"megapixels": 0.1}, True), (SQUARE, {"scale": 200}, True),
    (None, AREA, True), (None, AREA | {"megapixels": 2.5}, True), (None, {"size_by": "width x height"}, False),
]  # fmt: skip


ENLARGED_STRENGTH, BUNDLED_STRENGTH = BEHIND_OTHERS.strength, BEHIND_BUNDLED.strength
BUNDLED = [f"{name}.safetensors" for name in bundled_upscale_models()]


@pytest.mark.parametrize(
    ("connected", "answer"),
    [
        ("psu({upscale_model: other})", ENLARGED_STRENGTH),
        *((f"psu({{upscale_model: loader('{file}')}})", BUNDLED_STRENGTH) for file in BUNDLED),
        ("psu({upscale_model: loader('4x.safetensors')})", ENLARGED_STRENGTH),
        (f"psu({{upscale_model: reroute({{'': loader('{BUNDLED[0]}')}})}})", BUNDLED_STRENGTH),
        ("psu({upscale_model: bypassed(other)})", None),
        ("psu({upscale_model: bypassed(other)}, 'auto')", BUNDLED_STRENGTH),
        ("psu({upscale_model: unknown})", "unknown"),
        ("psu({upscale_model: null})", None),
        ("psu({upscale_model: null}, 'auto')", BUNDLED_STRENGTH),
        ("psu({upscale_model: other}, 'auto')", ENLARGED_STRENGTH),
        ("psu({upscale_model: null, cfm: load('sd15-x2')}, 'auto')", BUNDLED_STRENGTH),
        ("psu({upscale_model: null, cfm: load('sd15-x2-direct')}, 'auto')", None),
        ("psu({upscale_model: null, cfm: load('sdxl-x2-direct')}, 'auto')", None),
        ("psu({upscale_model: null, cfm: load('other')}, 'auto')", "unknown"),
        ("psu({upscale_model: null, cfm: unknown}, 'auto')", "unknown"),
        ("sample({guide: psu({upscale_model: other})})", ENLARGED_STRENGTH),
        ("sample({guide: psu({upscale_model: null}, 'auto')})", BUNDLED_STRENGTH),
        ("sample({guide: psu({upscale_model: null})})", None),
        ("sample({guide: null})", None),
        ("sample({guide: sample({guide: psu({upscale_model: other})})})", None),  # what CFM Sample made is no guide
        ("sample({guide: unknown})", "unknown"),
        ("sample({guide: reroute({'': psu({upscale_model: null}, 'auto')})})", BUNDLED_STRENGTH),
        ("sample({guide: bypassed(psu({upscale_model: null}, 'auto'))})", None),
    ],
)
def test_the_page_knows_the_strength_behind_an_upscale_model(
    node: str, connected: str, answer: float | str | None
) -> None:
    guides = {name: read_spec(find_weights(name)).guide for name in ("sd15-x2", "sd15-x2-direct", "sdxl-x2-direct")}
    graph = """(() => {
      const unknown = {}  // what a subgraph's input is to the nodes within
      const made = (links, widgets = {}, type = '') => ({
        type, graph: {}, mode: 0, inputs: Object.entries(links).map(([name, from], link) => ({
          name, type: name, link: from ? link : null,
        })),
        widgets: Object.entries(widgets).map(([name, value]) => ({ name, value })),
        getInputNode: (i) => (Object.values(links)[i] === unknown ? null : Object.values(links)[i]),
      })
      const psu = (links, method = 'psu') => made(links, { method }, 'FMBoostPSUUpsample')
      const load = (model) => made({}, { model }, 'FMBoostLoadCFM')
      const loader = (model_name) => made({}, { model_name }, 'UpscaleModelLoader')
      const reroute = (links) => made(links, {}, 'Reroute')
      const bypassed = (node) => ({ ...node, mode: 4 })
      const [sample, other] = [made, made({})]
      const guides = %s
      const found = strengthBehind(%s, (name) => guides[name])
      return found === undefined ? 'unknown' : found
    })()"""
    assert run(node, graph % (json.dumps(guides), connected), "size.js", "upstream.js") == answer


@pytest.mark.parametrize(
    ("made", "alone"),
    [
        ("upscale()", True),
        ("upscale({behind: ENLARGED_STRENGTH})", False),
        ("upscale({behind: null})", False),
        ("upscale({behind: undefined})", False),
        ("upscale({strength: 0.05})", False),
        ("upscale({decode: false})", False),
        ("upscale({links: [4]})", False),
        ("upscale({links: null})", True),
        ("upscale({type: 'FMBoostUpscaleImage', decode: undefined, links: [4]})", True),
        ("upscale({type: 'FMBoostUpscaleImage', restore: false})", False),
        ("upscale({type: 'FMBoostCFMSample'})", False),
    ],
)
def test_the_page_knows_where_no_flow_is_run(node: str, made: str, alone: bool) -> None:
    graph = """(() => {
      const upscale = (given = {}) => {
        const own = { strength: 0, decode: true, restore: true }
        const usual = { type: 'FMBoostUpscale', behind: BUNDLED_STRENGTH, links: [], ...own }
        const { type, behind, links, ...values } = { ...usual, ...given }
        const widgets = Object.entries(values).map(([name, value]) => ({ name, value }))
        return isAlone({ type, widgets, outputs: [{ links }] }, behind)
      }
      return %s
    })()"""
    assert run(node, graph % made, "size.js", "upstream.js") is alone


def test_what_stands_for_own_values_is_the_core_s(node: str) -> None:
    page = run(node, "[ENLARGED_STRENGTH, BUNDLED_STRENGTH, AUTO_METHOD]")
    assert page == [ENLARGED_STRENGTH, BUNDLED_STRENGTH, OWN_METHOD]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_line_has_no_english_word_in_another_language(node: str, language: str) -> None:
    """But for the names of solvers and of nfe; and no name of a value is left in it."""
    cases = [(a, FLOW | b | {"perStep": EVALUATIONS_PER_STEP[(FLOW | b)["solver"]]}, c) for a, b, c in CASES]
    script = f"{json.dumps(cases)}.map(([start, widgets, flows]) => summary(start, widgets, words, 8, flows))"
    own = (
        "ownNumbers({nfe: 0, modelNfe: 4, noise_step: -1, modelNoiseStep: 100, strength: 0, modelStrength: 1.3}, words)"
    )
    found, english = (say(node, f"[...{script}, {own}]", name) for name in (language, "en"))
    assert len(set(found)) == len(cases) + 1
    for text, other in zip(found, english, strict=True):
        assert not re.search(r"[{}]|undefined", text)
        assert re.findall(r"\d+x\d+", text) == re.findall(r"\d+x\d+", other)
        foreign = set(re.findall(r"[A-Za-z]{4,}", text)) - {"dopri"}
        assert language in ("en", "de", "es", "fr") or not foreign, text
        assert language == "en" or text != other


def test_another_kind_of_a_language_and_an_unknown_one(node: str) -> None:
    assert say(node, "words.count('stages', 2)", "zh-TW") == say(node, "words.count('stages', 2)", "zh")
    assert say(node, "words.count('stages', 2)", "fa") == "2 stages"
    assert [say(node, f"words.count('stages', {n})", "ru") for n in (1, 3, 5)] == ["1 этап", "3 этапа", "5 этапов"]
    assert run(node, "wordsIn({}, 'en')", "words.js") is None


def warnings_of_the_core() -> list[str]:
    """One of each kind of warning that a node can show, from the code that warns."""
    model = load_model("sd15-x2")
    spec, image = model.spec, torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    other = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    one = Party("the model", "sd15", 4)
    home = Place(torch.device("meta"), torch.float16)
    with collected_warnings() as found:
        start_alpha_bar(spec, 900)
        start_alpha_bar(replace(spec, network=replace(spec.network, noise_level=False), noise_steps=(250, 400)), 900)
        check_bare_scale(model, (64, 64), [(96, 96)])
        restored(image, other)
        restored(image[:1], other[:1])
        require_same_family(one, Party("the latent", None, 4, "connect another one", "sdxl", is_latent=True))
        for device in ("cpu", "meta"):
            _tell("the check for NaN", home, Place(torch.device(device), torch.float32), RuntimeError("no"))
    return found


def test_every_warning_is_said_in_every_language(node: str) -> None:
    sentences = warnings_of_the_core()
    assert len(sentences) == 8
    for language in LANGUAGES:
        found = say(node, f"{json.dumps(sentences)}.map((sentence) => words.warning(sentence))", language)
        assert not [text for text in found if re.search(r"[{}]|undefined", text)]
        same = [text for text, sentence in zip(found, sentences, strict=True) if text == sentence]
        assert same == (sentences if language == "en" else [])
    assert "100–700" in say(node, f"words.warning({json.dumps(sentences[0])})", "zh")
    assert say(node, "words.warning('Some other sentence.')", "zh") == "Some other sentence."


def test_no_warning_of_the_nodes_is_left_out() -> None:
    """Each `FMBoostWarning` that a host can show; a new one needs a text in locales/*/main.json."""
    files = [*(ROOT / "fmboost_core").rglob("*.py"), *(ROOT / "nodes").rglob("*.py")]
    codes = {path: path.read_text(encoding="utf-8") for path in files if "training" not in path.parts}
    warning = {path.name for path, code in codes.items() if "FMBoostWarning" in code and "warnings.warn" in code}
    assert warning == {
        "chain.py", "families.py", "fallback.py", "latents.py", "restore.py", "schedule.py", "checks.py",
    }  # fmt: skip
    texts = served()["en"]["fmboost"]["warnings"]
    for name, key in (("chain.py", "noNote"), ("latents.py", "oversized")):
        code = re.sub(r'"\s+f?"', "", (ROOT / "nodes" / name).read_text(encoding="utf-8"))
        pattern = re.escape(texts[key])
        assert re.search(re.sub(r"\\{\w+\\}", r"{[^}]+}", pattern), code), key


STORE = """{ kept: {}, getItem(key) { return this.kept[key] ?? null }, setItem(key, text) { this.kept[key] = text } }"""


def test_warnings_outlive_the_page(node: str) -> None:
    """A cached node does not run again, and the host does not send its warnings again."""
    script = f"""(() => {{
        const storage = {STORE}, before = new Notes(storage)
        before.set(5, ['soft', 'large']); before.set(7, ['other']); before.set('7', [])
        const after = new Notes(storage)
        return [after.of('5'), after.of(7), after.of(6)]
    }})()"""
    assert run(node, script, "notes.js") == [["soft", "large"], [], []]


def test_the_oldest_warnings_are_forgotten_and_a_storage_may_refuse(node: str) -> None:
    script = f"""(() => {{
        const notes = new Notes({STORE}), refusing = new Notes(null), spoilt = new Notes({{ getItem: () => '{{' }})
        for (let id = 300; id > 0; id--) notes.set(id, [`${{id}}`])
        refusing.set(1, ['lost']); spoilt.set(1, ['lost'])
        return [notes.of(1), notes.of(200), notes.of(201), refusing.of(1), spoilt.of(1)]
    }})()"""
    assert run(node, script, "notes.js") == [["1"], ["200"], [], [], []]


def test_a_language_has_the_page_texts_of_english() -> None:
    """The same keys, with the same names of values; plural forms are the language's own."""
    texts = served()
    assert sorted(texts) == sorted(LANGUAGES)
    english = texts["en"]["fmboost"]
    for language, found in texts.items():
        for part in ("line", "warnings"):
            assert list(found["fmboost"][part]) == list(english[part]), language
        for key, text in found["fmboost"]["line"].items():
            forms = text if isinstance(text, dict) else {"other": text}
            wanted = english["line"][key]
            wanted = wanted["other"] if isinstance(wanted, dict) else wanted
            assert "other" in forms
            assert all(names_in(form) == names_in(wanted) for form in forms.values()), (language, key)
        for key, text in found["fmboost"]["warnings"].items():
            assert names_in(text) <= names_in(english["warnings"][key]), (language, key)


def names_in(text: str) -> set[str]:
    return set(re.findall(r"\{(\w+)\}", text))


TEMPLATES = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (ROOT / "workflows").glob("*.json")}
TRANSLATED = [language for language, texts in served().items() if "templates" in texts["fmboost"]]


def note_of(graph: dict[str, Any]) -> dict[str, Any]:
    (note,) = (node for node in graph["nodes"] if node["type"] == "MarkdownNote")
    return note


def english_of(name: str) -> str:
    return note_of(TEMPLATES[name])["widgets_values"][0]


def translated(node: str, graph: Any, language: str = "zh") -> Any:
    """A graph as the page loads it in a language."""
    texts = f"wordsIn({json.dumps(served())}, {json.dumps(language)}).texts.templates"
    script = f"((graph) => {{ translate(graph, {texts}); return graph }})({json.dumps(graph)})"
    return run(node, script, "words.js", "templates.js")


def test_templates_are_there_in_chinese_and_in_english_only_as_templates() -> None:
    assert TRANSLATED == ["zh"]


@pytest.mark.parametrize("language", TRANSLATED)
def test_a_note_has_a_translation_of_its_present_text(language: str) -> None:
    """A checksum that is not the one here means: the English note is new. Bring its translation up to date."""
    found = served()[language]["fmboost"]["templates"]
    now = {name: f"{zlib.crc32(english_of(name).encode()):08x}" for name in sorted(TEMPLATES)}
    assert {name: note["english"] for name, note in found["notes"].items()} == now
    assert len(set(now.values())) == len(now)
    for name, note in found["notes"].items():
        text, english = note["text"], english_of(name)
        for part in (r"^# ", r"^- ", r"^\d\. ", r"\n\n", r"(?<!\*)\*[\w -]+\*(?!\*)"):
            assert re.findall(part, text, re.M) == re.findall(part, english, re.M), (name, part)
        assert set(re.findall(r"\d+", english)) <= set(re.findall(r"\d+", text)), name
        assert hidden_emphasis(text) == [], name
    titles = {node["title"] for graph in TEMPLATES.values() for node in graph["nodes"] if node.get("title")}
    assert set(found["titles"]) == titles


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_a_template_is_said_in_chinese(node: str, name: str) -> None:
    """Its note and its titles; nothing else of it changes."""
    graph, texts = TEMPLATES[name], served()["zh"]["fmboost"]["templates"]
    found = translated(node, graph)
    assert note_of(found)["widgets_values"] == [texts["notes"][name]["text"]]
    assert note_of(found)["title"] == "说明"
    for after, before in zip(found["nodes"], graph["nodes"], strict=True):
        assert after.get("title") == texts["titles"].get(before.get("title"), before.get("title"))
        same = {"title"} if after["type"] != "MarkdownNote" else {"title", "widgets_values"}
        assert {k: v for k, v in after.items() if k not in same} == {k: v for k, v in before.items() if k not in same}
    assert {k: v for k, v in found.items() if k != "nodes"} == {k: v for k, v in graph.items() if k != "nodes"}


def test_only_english_templates_change_and_only_in_a_language_that_has_them(node: str) -> None:
    graph = TEMPLATES["sd15_1k"]
    found = translated(node, graph)
    assert found != graph and translated(node, found) == found
    for language in (*LANGUAGES, "fa"):
        assert (translated(node, graph, language) == graph) is (language not in TRANSLATED), language


def test_other_notes_and_their_graphs_stay_as_they_are(node: str) -> None:
    text = english_of("sd15_1k")
    others: list[Any] = [
        {"type": "MarkdownNote", "title": "Prompt", "widgets_values": values}
        for values in ([text + " "], [text.replace("SD1.5", "SD2", 1)], [text.lower()], [""], [], None, {"text": text})
    ]
    others += [{"type": "Note", "title": "Prompt", "widgets_values": [text]}, {"type": "MarkdownNote"}, None]
    for graph in ({"nodes": others}, {"nodes": []}, {}, None, {"nodes": None}):
        assert translated(node, graph) == graph
    assert run(node, f"hasNote({json.dumps(TEMPLATES['sd15_1k'])})", "templates.js") is True
    assert (
        run(node, "[hasNote(null), hasNote({}), hasNote({nodes: [{type: 'KSampler'}]})]", "templates.js") == [False] * 3
    )


def test_the_pages_checksum_is_crc_32(node: str) -> None:
    texts = ["", "a", "123456789", "é → 中文 😀\n", *map(english_of, sorted(TEMPLATES))]
    found = run(node, f"{json.dumps(texts)}.map(checksum)", "templates.js")
    assert found == [f"{zlib.crc32(text.encode()):08x}" for text in texts]
