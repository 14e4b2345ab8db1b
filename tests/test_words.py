"""The nodes' words: every node has its help page, and every language says all that the schemas say."""

import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from comfy_stub import forget_pack, install
from PIL import Image

ROOT = Path(__file__).parents[1]
LANGUAGES = ("de", "en", "es", "fr", "ja", "ko", "ru", "zh")


def schemas() -> dict[str, Any]:
    """Every node's schema by its id, from the nodes' own code in the stub of the host."""
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder:
        host = install(patch, Path(folder))
        found = {node_id: node.GET_SCHEMA() for node_id, node in host.nodes.items()}
    forget_pack()
    return found


SCHEMAS = schemas()


def test_a_node_takes_the_models_own_numbers_by_default() -> None:
    flows = {node_id for node_id, schema in SCHEMAS.items() if any(i.id == "nfe" for i in schema.inputs)}
    assert flows == {"FMBoostCFMSample", "FMBoostUpscale", "FMBoostUpscaleImage"}
    for node_id in flows:
        (nfe,) = (i for i in SCHEMAS[node_id].inputs if i.id == "nfe")
        assert nfe.min == nfe.default == 0


def words_of(language: str) -> dict[str, Any]:
    return json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))


def words(name: str, tooltip: str | None) -> dict[str, str]:
    return {"name": name, "tooltip": tooltip} if tooltip else {"name": name}


def words_in(schema: Any) -> dict[str, Any]:
    """What a schema says, as a locale file says it. No tooltip there is no tooltip here."""
    outputs = enumerate(schema.outputs)
    return {
        "display_name": schema.display_name,
        "description": schema.description,
        "inputs": {i.id: words(i.display_name or i.id, i.tooltip) for i in schema.inputs},
        "outputs": {str(place): words(o.display_name, o.tooltip) for place, o in outputs},
    }


def texts(tree: dict[str, Any], path: str = "") -> dict[str, Any]:
    """All leaves of a tree by their paths: "FMBoostUpscale/inputs/seed/name"."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= texts(value, f"{path}{key}/") if isinstance(value, dict) else {path + key: value}
    return found


ENGLISH = texts({node_id: words_in(schema) for node_id, schema in SCHEMAS.items()})


def help_page(node_id: str) -> str:
    return (ROOT / "web/docs" / f"{node_id}.md").read_text(encoding="utf-8")


TRANSLATED = sorted((ROOT / "web/docs").glob("*/*.md"))  # <NodeId>/<language>.md
# Headings, rows, bullets, steps, formulas, and the targets of links and pictures.
PARTS = (r"^#+ ", r"^\|[ -]", r"^- ", r"^\d\. ", r"^    .+", r"\]\([^)]+\)")


def place_of(path: Path) -> str:
    return f"{path.parent.name}-{path.stem}"


@pytest.mark.parametrize("node_id", SCHEMAS)
def test_a_help_page_has_a_row_for_every_input_and_output(node_id: str) -> None:
    schema, page = SCHEMAS[node_id], help_page(node_id)
    assert page.startswith(f"# {schema.display_name}\n")
    inputs, outputs = page.split("## Outputs")
    assert re.findall(r"^\| `(\w+)` \|", inputs, re.MULTILINE) == [i.id for i in schema.inputs]
    assert re.findall(r"^\| `([\w ]+)` \|", outputs, re.MULTILINE) == [o.display_name for o in schema.outputs]


def test_no_help_page_is_of_an_unknown_node() -> None:
    assert {path.stem for path in (ROOT / "web/docs").glob("*.md")} == set(SCHEMAS)
    assert {path.parent.name for path in TRANSLATED} <= set(SCHEMAS)
    assert {path.stem for path in TRANSLATED} <= set(LANGUAGES) - {"en"}


def test_the_languages_are_all_there() -> None:
    assert sorted(path.parent.name for path in (ROOT / "locales").glob("*/nodeDefs.json")) == sorted(LANGUAGES)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_says_all_of_it_and_nothing_else(language: str) -> None:
    found = texts(words_of(language))
    assert set(found) == set(ENGLISH)
    assert not [path for path, text in found.items() if not isinstance(text, str) or not text.strip()]
    # The page's messages are templates, in which these are syntax.
    assert not [path for path, text in found.items() if re.search(r"[{}@|<>]", text)]


def test_english_is_the_schemas_own() -> None:
    assert texts(words_of("en")) == ENGLISH


@pytest.mark.parametrize("language", LANGUAGES)
def test_numbers_and_names_of_choices_are_never_translated(language: str) -> None:
    found = texts(words_of(language))
    for path, english in ENGLISH.items():
        assert set(re.findall(r"\d+", english)) <= set(re.findall(r"\d+", found[path])), path
    for node_id, schema in SCHEMAS.items():
        for choice in (i for i in schema.inputs if i.tooltip and isinstance(getattr(i, "options", None), list)):
            text = found[f"{node_id}/inputs/{choice.id}/tooltip"]
            said = [o for o in choice.options if re.search(rf"\b{re.escape(o)}\b", choice.tooltip)]
            assert not [option for option in said if option not in text], (node_id, choice.id)


def test_chinese_has_every_help_page() -> None:
    assert {path.parent.name for path in TRANSLATED if path.stem == "zh"} == set(SCHEMAS)


@pytest.mark.parametrize("path", TRANSLATED, ids=place_of)
def test_a_translated_help_page_has_all_of_the_english_one(path: Path) -> None:
    """The same parts in the same order, and every number; links and pictures are the same files."""
    page, english = path.read_text(encoding="utf-8"), help_page(path.parent.name)
    for part in PARTS:
        assert re.findall(part, page, re.MULTILINE) == re.findall(part, english, re.MULTILINE), part
    assert set(re.findall(r"\d+", english)) <= set(re.findall(r"\d+", page))


@pytest.mark.parametrize("path", TRANSLATED, ids=place_of)
def test_a_translated_help_page_names_inputs_and_outputs_as_the_page_shows_them(path: Path) -> None:
    page, schema, said = path.read_text(encoding="utf-8"), SCHEMAS[path.parent.name], words_of(path.stem)
    texts = said[path.parent.name]
    assert page.startswith(f"# {texts['display_name']}\n")
    inputs, outputs = (re.findall(r"^\| `(.+?)` \|", part, re.MULTILINE) for part in page.split("\n## ")[2:4])
    assert inputs[: len(schema.inputs)] == [texts["inputs"][i.id]["name"] for i in schema.inputs]
    assert outputs == [entry["name"] for entry in texts["outputs"].values()]
    titles = {entry["display_name"] for entry in said.values()}
    assert set(re.findall(r"「\**(FMBoost .+?)\**」", page)) <= titles


@pytest.mark.parametrize("path", TRANSLATED, ids=place_of)
def test_a_translated_help_page_quotes_what_is_shown(path: Path) -> None:
    """Errors are English on every page. Warnings are shown in the page's language."""
    page, english = path.read_text(encoding="utf-8"), help_page(path.parent.name)
    main = json.loads((ROOT / "locales" / path.stem / "main.json").read_text(encoding="utf-8"))
    warnings = "".join(main["fmboost"]["warnings"].values())
    for quote in re.findall(r'^- \*\*"(.+?)"\*\*', page, re.MULTILINE):
        foreign = re.findall(r"[^\x00-\x7f…]+", quote)
        assert all(part in warnings for part in foreign) if foreign else f'"{quote}"' in " ".join(english.split())


@pytest.mark.parametrize("path", TRANSLATED, ids=place_of)
def test_bold_type_of_a_translated_help_page_is_seen(path: Path) -> None:
    assert hidden_emphasis(path.read_text(encoding="utf-8")) == []


def hidden_emphasis(text: str) -> list[str]:
    """What Markdown may not take for bold: ** between a sign and a letter, where no space is, as in **名：**字."""
    return [bold for bold in re.findall(r"\*\*(.+?)\*\*", text) if not re.fullmatch(r'\w(.*\w)?|".+"', bold)]


@pytest.mark.parametrize("page", sorted((ROOT / "web/docs").glob("*.md")), ids=lambda page: page.stem)
def test_a_help_page_has_its_picture_and_says_what_is_on_it(page: Path) -> None:
    ((words, name),) = re.findall(r"^!\[([^]]+)\]\(([^)]+)\)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert name == f"{page.stem}.jpg" and len(words) > 40
    with Image.open(page.with_name(name)) as picture:
        assert picture.width <= 900 and page.with_name(name).stat().st_size < 100_000
