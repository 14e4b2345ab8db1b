"""The page's arithmetic is the core's: the face of a node promises what the node then makes."""

import json
import math
import shutil
import subprocess
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from fmboost_core.errors import ConfigError
from fmboost_core.sampling.solvers import EVALUATIONS_PER_STEP
from fmboost_core.sampling.target import Target, stage_sizes
from fmboost_core.sampling.upscaler import _to_unit

WEB = Path(__file__).parents[1] / "web"
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


def run(node: str, script: str, module: str = "size.js") -> Any:
    """What an expression gives in which a module of `web` is known."""
    code = (WEB / module).read_text(encoding="utf-8") + f"\nconsole.log(JSON.stringify({script}))"
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
    arguments = f"{json.dumps(start)}, {json.dumps(widgets)}, 8, {json.dumps(flows)}"
    assert run(node, f"summary({arguments})") == text


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
