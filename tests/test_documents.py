"""Documents: their links and anchors, the model cards' front matter, and one version in all places."""

import ast
import re
from pathlib import Path

import pytest
import yaml

import fmboost_core
from fmboost_core.files.locate import BUNDLED_MODELS, bundled_upscale_models

ROOT = Path(__file__).parents[1]
FOLDERS = ("docs", "research", "web/docs", "fmboost_core/weights")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md"))])
HELP = ROOT / "web/docs"
CARDS = sorted((BUNDLED_MODELS.parent / "cards").glob("*.md"))
FENCE = re.compile(r"^(```+).*?^\1$", re.MULTILINE | re.DOTALL)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def folder_of(path: Path) -> Path:
    """From where a document's links count. ComfyUI counts those of all help pages from web/docs."""
    return HELP if path.is_relative_to(HELP) else path.parent


def prose(path: Path) -> str:
    """A document without its code."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", path.read_text(encoding="utf-8")))


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    text, found = FENCE.sub("", path.read_text(encoding="utf-8")), []
    for heading in re.findall(r"^#{1,6} +(.+?) *$", text, re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        found.append(re.sub(r"[^\w\- ]", "", plain).replace(" ", "-"))
    return {anchor if not found[:i].count(anchor) else f"{anchor}-{found[:i].count(anchor)}"
            for i, anchor in enumerate(found)}  # fmt: skip


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_every_link_leads_to_a_file_and_a_heading(path: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if link.startswith("https://"):
            continue
        place, _, anchor = link.partition("#")
        target = (folder_of(path) / place).resolve() if place else path
        assert target.exists() and target.is_relative_to(ROOT), f"{name(path)} links to {link}"
        if anchor:
            assert anchor in anchors(target), f"{name(path)} links to {link}; the headings are {anchors(target)}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_python_in_a_document_can_be_parsed_and_imports_public_names(path: Path) -> None:
    for block in re.findall(r"^```python\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        imports = (node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.ImportFrom))
        imported = {alias.name for node in imports if node.module == "fmboost_core" for alias in node.names}
        assert imported <= set(fmboost_core.__all__)


def test_every_document_is_linked_from_another() -> None:
    linked = {
        (folder_of(path) / link.partition("#")[0]).resolve()
        for path in DOCUMENTS
        for link in re.findall(r"\]\(([^)\s]+)\)", prose(path))
        if "://" not in link and link.partition("#")[0]
    }
    entries = {ROOT / "README.md", *HELP.glob("*/*.md")}  # ComfyUI finds a translated help page by its name
    assert not [name(path) for path in DOCUMENTS if path not in entries and path.resolve() not in linked]


def test_every_image_of_the_documents_is_shown() -> None:
    shown = "".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    images = [path for folder in ("docs", "research") for path in (ROOT / folder).rglob("*.??g")]
    assert images and not [name(path) for path in images if path.name not in shown]


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_a_card_has_the_hubs_front_matter_and_every_section(path: Path) -> None:
    _, front, text = path.read_text(encoding="utf-8").split("---\n", 2)
    fields = yaml.safe_load(front)
    own = path.stem not in bundled_upscale_models()  # which go on from another project's network, as guide networks do
    assert fields["license"] == ("mit" if own else "bsd-3-clause")
    assert fields["pipeline_tag"] == "image-to-image" and fields["tags"]
    sections = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert sections == [
        "Intended use", "How to load", "Training data", "Training procedure", "Figures", "Limits",
        *(["Licence"] if not own or path.stem.endswith("-direct") else []), "Checksum",
    ]  # fmt: skip


def test_the_version_is_the_same_everywhere() -> None:
    """In the package, its metadata, the citation and the newest entry of the changelog."""
    version = fmboost_core.__version__
    assert f'\nversion = "{version}"\n' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert str(yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"]) == version
    dated = re.search(r"^## \[(.+?)\] - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert dated is not None and dated[1] == version


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=name)
def test_a_form_or_workflow_is_yaml(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)
