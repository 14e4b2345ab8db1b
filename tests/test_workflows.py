"""The example workflows fit the nodes: names, values and links, in the page's format and in the server's."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image, ImageStat
from test_words import SCHEMAS

from fmboost_core.files.locate import bundled_models

ROOT = Path(__file__).parents[1]
WORKFLOWS = ROOT / "workflows"
TWINS = Path(__file__).parent / "workflows"
NAMES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
NOTES = ("MarkdownNote", "Note")
FOLDERS = {  # of what the host's loaders load
    "CheckpointLoaderSimple": "checkpoints", "LoraLoaderModelOnly": "loras", "UNETLoader": "diffusion_models",
    "CLIPLoader": "text_encoders", "VAELoader": "vae",
}  # fmt: skip
PICTURE_BYTES = 150_000
AFTER_SEED = ("fixed", "increment", "decrement", "randomize")  # the page's own widget after a seed


def graph_of(name: str) -> dict[str, Any]:
    return json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))


def twin_of(name: str) -> dict[str, dict[str, Any]]:
    return json.loads((TWINS / f"{name}.api.json").read_text(encoding="utf-8"))


def is_widget(entry: SimpleNamespace) -> bool:
    """Only values have a default or choices."""
    return hasattr(entry, "default") or bool(getattr(entry, "options", None))


def check_value(entry: SimpleNamespace, value: Any) -> None:
    """A value that the server takes for an input."""
    if entry.id == "model":  # bundled models and the user's files: no file of ours to know them
        assert value in bundled_models()
    elif getattr(entry, "options", None):
        assert value in entry.options, entry.id
    elif isinstance(entry.default, bool):
        assert isinstance(value, bool), entry.id
    else:
        assert isinstance(value, int | float) and not isinstance(value, bool), entry.id
        assert entry.min <= value <= entry.max, entry.id
        assert isinstance(value, int) or isinstance(entry.default, float), entry.id


def widget_values(node: dict[str, Any]) -> dict[str, Any]:
    """A node's `widgets_values` by name, one for each widget of the schema and one more after a seed.

    Optional widgets at the end may be left out: the page then takes their defaults.
    """
    values, found, missing = iter(node["widgets_values"]), {}, object()
    for entry in SCHEMAS[node["type"]].inputs:
        if is_widget(entry):
            value = next(values, missing)
            if value is missing:
                assert entry.optional, entry.id
                continue
            found[entry.id] = value
            if getattr(entry, "control_after_generate", False):
                assert next(values) in AFTER_SEED
    assert not list(values), node["type"]
    return found


def test_there_are_workflows_and_nothing_without_its_twin_and_picture() -> None:
    assert {"image_upscale", "sd15_1k", "cascade_2k"} <= set(NAMES)
    assert sorted(path.name.removesuffix(".api.json") for path in TWINS.iterdir()) == NAMES
    assert sorted(path.stem for path in WORKFLOWS.glob("*.jpg")) == NAMES
    # Anything else there would be served as a workflow, or hide those that are.
    assert {path.suffix for path in WORKFLOWS.iterdir()} == {".json", ".jpg"}
    assert not (ROOT / "example_workflows").exists()


@pytest.mark.parametrize("name", NAMES)
def test_the_picture_is_small_and_opens(name: str) -> None:
    path = WORKFLOWS / f"{name}.jpg"
    assert path.stat().st_size <= PICTURE_BYTES
    with Image.open(path) as picture:
        assert picture.format == "JPEG" and picture.width >= 800
        assert sum(ImageStat.Stat(picture).mean) / 3 > 60  # a result, which is bright, and no dark graph


@pytest.mark.parametrize("name", NAMES)
def test_the_nodes_of_a_graph_are_as_their_schemas_say(name: str) -> None:
    ours = [node for node in graph_of(name)["nodes"] if node["type"].startswith("FMBoost")]
    assert ours
    for node in ours:
        schema = SCHEMAS[node["type"]]
        assert {entry["name"] for entry in node["inputs"]} <= {entry.id for entry in schema.inputs}, node["type"]
        assert [entry["name"] for entry in node["outputs"]] == [entry.display_name for entry in schema.outputs]
        values = widget_values(node)
        for entry in schema.inputs:
            if entry.id in values:
                check_value(entry, values[entry.id])


@pytest.mark.parametrize("name", NAMES)
def test_the_nodes_of_a_twin_are_as_their_schemas_say(name: str) -> None:
    for node in twin_of(name).values():
        if not node["class_type"].startswith("FMBoost"):
            continue
        entries = {entry.id: entry for entry in SCHEMAS[node["class_type"]].inputs}
        assert set(node["inputs"]) <= set(entries)
        optional = {key for key, entry in entries.items() if getattr(entry, "optional", False)}
        assert set(entries) - set(node["inputs"]) <= optional, node["class_type"]
        for key, value in node["inputs"].items():
            assert is_widget(entries[key]) is not isinstance(value, list), key
            if is_widget(entries[key]):
                check_value(entries[key], value)


@pytest.mark.parametrize("name", NAMES)
def test_both_ends_know_every_link_and_agree_on_its_type(name: str) -> None:
    graph = graph_of(name)
    nodes = {node["id"]: node for node in graph["nodes"]}
    assert len(nodes) == len(graph["nodes"]) and max(nodes) <= graph["last_node_id"]
    links = {link[0]: link for link in graph["links"]}
    assert len(links) == len(graph["links"]) and max(links) <= graph["last_link_id"]
    for id, source, out, target, slot, kind in links.values():
        output, entry = nodes[source]["outputs"][out], nodes[target]["inputs"][slot]
        assert id in output["links"] and entry["link"] == id
        assert output["type"] == entry["type"] == kind
    inputs = [entry["link"] for node in nodes.values() for entry in node.get("inputs", []) if entry["link"] is not None]
    outputs = [id for node in nodes.values() for entry in node.get("outputs", []) for id in entry["links"] or []]
    assert sorted(inputs) == sorted(outputs) == sorted(links)


@pytest.mark.parametrize("name", NAMES)
def test_graph_and_twin_are_the_same(name: str) -> None:
    graph, twin = graph_of(name), twin_of(name)
    nodes = {str(node["id"]): node for node in graph["nodes"] if node["type"] not in NOTES}
    assert {id: node["type"] for id, node in nodes.items()} == {id: node["class_type"] for id, node in twin.items()}
    links = {link[0]: [str(link[1]), link[2]] for link in graph["links"]}
    for id, node in nodes.items():
        linked = {entry["name"]: links[entry["link"]] for entry in node["inputs"] if entry["link"] is not None}
        assert linked == {key: value for key, value in twin[id]["inputs"].items() if isinstance(value, list)}
        plain = [value for value in twin[id]["inputs"].values() if not isinstance(value, list)]
        # The page's order is the host's; of its nodes only the values are known here.
        assert all(value in node["widgets_values"] for value in plain), node["type"]
        if node["type"] in SCHEMAS:
            assert widget_values(node).items() <= twin[id]["inputs"].items()


@pytest.mark.parametrize("name", NAMES)
def test_a_note_says_what_to_expect(name: str) -> None:
    notes = [node for node in graph_of(name)["nodes"] if node["type"] in NOTES]
    assert len(notes) == 1
    text = notes[0]["widgets_values"][0]
    assert len(text.split()) > 40 and "Settings to change" in text


@pytest.mark.parametrize("name", NAMES)
def test_no_node_lies_on_another(name: str) -> None:
    title = 30
    boxes = [(n["pos"][0], n["pos"][1] - title, *n["size"]) for n in graph_of(name)["nodes"]]
    for place, (x, y, width, height) in enumerate(boxes):
        for u, v, wide, high in boxes[place + 1 :]:
            assert x + width < u or u + wide < x or y + height + title < v or v + high + title < y


@pytest.mark.parametrize("name", NAMES)
def test_what_has_to_be_downloaded_has_its_address(name: str) -> None:
    for node in graph_of(name)["nodes"]:
        if node["type"] not in FOLDERS:
            assert "models" not in node["properties"]
            continue
        (model,) = node["properties"]["models"]
        assert model["name"] == node["widgets_values"][0]
        assert model["url"].startswith("https://huggingface.co/") and "/resolve/" in model["url"]
        assert model["directory"] == FOLDERS[node["type"]]


def blueprint() -> dict[str, Any]:
    (path,) = (ROOT / "subgraphs").glob("*.json")
    graph = json.loads(path.read_text(encoding="utf-8"))
    (inner,) = graph["definitions"]["subgraphs"]
    assert inner["name"] == graph["nodes"][0]["title"] == path.stem
    return graph


def test_the_blueprint_is_one_node_with_the_inputs_and_outputs_of_its_inside() -> None:
    """The host raises an error on every load of the page for an invalid one."""
    graph = blueprint()
    (outer,), (inner,) = graph["nodes"], graph["definitions"]["subgraphs"]
    assert outer["type"] == inner["id"] and graph["links"] == []
    for side in ("inputs", "outputs"):
        assert [(e["name"], e["type"]) for e in outer[side]] == [(e["name"], e["type"]) for e in inner[side]]
    assert [e["name"] for e in outer["inputs"] if "widget" not in e] == ["model", "clip", "vae"]
    assert {"seed", "width", "height", "cfm", "scale", "nfe"} < {e["name"] for e in outer["inputs"]}


def test_the_inside_of_the_blueprint_fits_its_nodes_and_links() -> None:
    (inner,) = blueprint()["definitions"]["subgraphs"]
    nodes = {node["id"]: node for node in inner["nodes"]}
    for node in (node for node in nodes.values() if node["type"] in SCHEMAS):
        schema = SCHEMAS[node["type"]]
        assert {entry["name"] for entry in node["inputs"]} == {entry.id for entry in schema.inputs}
        assert [entry["name"] for entry in node["outputs"]] == [entry.display_name for entry in schema.outputs]
        for key, value in widget_values(node).items():
            check_value(next(entry for entry in schema.inputs if entry.id == key), value)
    for link in inner["links"]:
        source, target = link["origin_id"], link["target_id"]
        start = inner["inputs"] if source == -10 else nodes[source]["outputs"]
        end = inner["outputs"] if target == -20 else nodes[target]["inputs"]
        output, entry = start[link["origin_slot"]], end[link["target_slot"]]
        assert output["type"] == entry["type"] == link["type"]
        assert link["id"] in output["linkIds" if source == -10 else "links"]
        assert link["id"] in entry["linkIds"] if target == -20 else entry["link"] == link["id"]
    wired = {link["target_id"] for link in inner["links"]} | {link["origin_id"] for link in inner["links"]}
    assert wired == {*nodes, -10, -20}
    kinds = {node["type"] for node in nodes.values()}
    assert {"KSampler", "FMBoostUpscale", "VAEDecode", "FMBoostRestore"} < kinds


@pytest.mark.parametrize(("name", "family"), [("flux_2k", "flux1"), ("zimage_2k", "flux1"), ("sd35_2k", "sd3")])
def test_a_workflow_of_16_channels_tells_the_family(name: str, family: str) -> None:
    """By the diffusion model: two families have as many channels, and statistics can only guess."""
    twin = twin_of(name)
    (upscale,) = (node["inputs"] for node in twin.values() if node["class_type"] == "FMBoostUpscale")
    loader = twin[upscale["model"][0]]["class_type"]
    assert loader in FOLDERS and twin[upscale["cfm"][0]]["inputs"]["model"] == f"{family}-x2"
    (empty,) = (node for node in twin.values() if node["class_type"].startswith("Empty"))
    assert empty["class_type"] == "EmptySD3LatentImage"
