"""ComfyUI's page in a real Chromium: opened, clicked, typed into and read as a person does."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from .comfyui import RUN_SECONDS, ComfyUI

if TYPE_CHECKING:  # the package is optional
    from playwright.sync_api import Browser, Locator, Page

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
WIDTH, HEIGHT = 1600, 1000
WAIT_MS = 180_000
DOUBLE_CLICK_MS = 500
TRIES, SIDEBAR_MS = 10, 2_000  # to open the library of nodes; how long it takes to open
SETTINGS = {"Comfy.TutorialCompleted": True, "Comfy.Minimap.Visible": False}
CLASSIC, NEW = "classic", "new"
NEW_CANVAS = "Comfy.VueNodes.Enabled"

COMPLAINTS = "[role=dialog], [data-testid=error-overlay], .p-toast-message"

# The workflow that the page opens by itself comes late, and would replace one of ours.
READY = """(type) => Boolean(
    window.LiteGraph?.registered_node_types?.[type] && window.app?.extensionManager?.workflow?.activeWorkflow
    && app.graph?.nodes.length
)"""
# What the page complains of is seen two frames later.
FRAMES = "for (let i = 0; i < 2; i++) await new Promise(requestAnimationFrame)"
LOAD = f"async ([graph, name]) => {{ await app.loadGraphData(graph, true, true, name); {FRAMES} }}"
CENTRE = f"""async (id) => {{
    const [x, y, width, height] = app.graph.getNodeById(id).boundingRect
    const view = app.canvas.ds, frame = app.canvas.canvas.getBoundingClientRect()
    view.scale = 1
    view.offset = [frame.width / 2 - x - width / 2, frame.height / 2 - y - height / 2]
    app.canvas.setDirty(true, true)
    {FRAMES}
}}"""
UNKNOWN = """() => app.graph.nodes
    .filter((node) => node.has_errors || !LiteGraph.registered_node_types[node.type])
    .map((node) => node.type)"""
NODES = """() => app.graph.nodes.map((node) => ({
    id: String(node.id), type: node.type, title: node.getTitle(), box: [...node.boundingRect],
    labels: Object.fromEntries((node.widgets ?? []).map((w) => [w.name, w.label])),
}))"""
# Rectangles are [left, top, right, bottom] on the screen.
PLACES = """(id) => {
    const node = app.graph.getNodeById(id), view = app.canvas.ds, frame = app.canvas.canvas.getBoundingClientRect()
    const shown = document.querySelector(`[data-node-id="${id}"]`)?.getBoundingClientRect()
    const onScreen = ([x, y]) => view.convertOffsetToCanvas([x, y]).map((v, i) => v + [frame.left, frame.top][i])
    const [x, y, width, height] = node.boundingRect
    const drawn = [...onScreen([x, y]), ...onScreen([x + width, y + height])]
    const rows = (node.widgets ?? []).map((w) => [w.name, onScreen([x + width / 2, node.pos[1] + w.y + 10])])
    return {
        node: shown ? [shown.left, shown.top, shown.right, shown.bottom] : drawn,
        rows: Object.fromEntries(rows),
    }
}"""
FACE = """(id) => {
    const element = app.graph.getNodeById(id)?.widgets?.find((w) => w.name === 'fmboost_face')?.element
    if (!element?.isConnected) return null
    const { left, top, right, bottom } = element.firstChild.getBoundingClientRect()
    const home = element.closest('[data-node-id]')?.dataset.nodeId ?? null
    return { lines: element.innerText.split('\\n').filter(Boolean), box: [left, top, right, bottom], home }
}"""
LISTEN = """() => {
    window.ended = null
    for (const kind of ['execution_success', 'execution_error', 'execution_interrupted']) {
        const note = ({ detail }) => (window.ended ??= [kind, detail?.exception_message ?? ''])
        window.comfyAPI.api.api.addEventListener(kind, note, { once: true })
    }
}"""
SAVED = "(id) => app.nodeOutputs?.[id]?.images?.length ? app.nodeOutputs[id].images : null"
# The nodes that a link passes behind, as [type of its origin, type of its target, type of the node between].
BEHIND = f"""async () => {{
    app.canvas.setDirty(true, true)
    {FRAMES}
    const context = document.createElement('canvas').getContext('2d')
    context.lineWidth = 4
    const found = []
    for (const link of app.graph.links.values()) {{
        const parts = [link]
        const before = (part) => app.graph.reroutes?.get(part.parentId)
        for (let at = before(link); at; at = before(at)) parts.push(at)
        const passes = (x, y) => parts.some((part) => part.path && context.isPointInStroke(part.path, x, y))
        for (const node of app.graph.nodes) {{
            if (node.id === link.origin_id || node.id === link.target_id) continue
            const [left, top, width, height] = node.boundingRect
            let hidden = false
            for (let x = left + 4; x < left + width - 4 && !hidden; x += 4) {{
                for (let y = top + 4; y < top + height - 4 && !hidden; y += 3) hidden = passes(x, y)
            }}
            const type = (id) => app.graph.getNodeById(id).type
            if (hidden) found.push([type(link.origin_id), type(link.target_id), node.type])
        }}
    }}
    return found
}}"""
PICTURES_LOADED = "(root) => [...root.querySelectorAll('img')].every((image) => image.naturalWidth > 0)"


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright to drive a browser")
    found = filter(None, map(shutil.which, CHROMIUMS))
    path = os.environ.get("CHROMIUM_PATH") or next(found, None)
    if path is None:
        pytest.skip("needs a Chromium, on the PATH or named by CHROMIUM_PATH")
    with playwright.sync_playwright() as driver:
        # In a container Chromium's own sandbox cannot start; only the host on this machine is looked at.
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


class Frontend:
    """The page of a host, in one of its canvases and languages."""

    def __init__(self, browser: Browser, host: ComfyUI, canvas: str = CLASSIC, language: str = "en") -> None:
        host.post("/api/settings", {**SETTINGS, NEW_CANVAS: canvas == NEW, "Comfy.Locale": language})
        self.host, self.canvas = host, canvas
        self.context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT})
        self.context.route(lambda url: "//127.0.0.1" not in url, lambda route: route.abort())
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.errors: list[str] = []
        self.page.on("console", lambda message: self._note(message.type, message.text, message.location["url"]))
        self.page.on("pageerror", lambda error: self._note("error", str(error), error.stack or ""))
        self.page.goto(f"http://127.0.0.1:{host.port}/", wait_until="domcontentloaded")
        self.page.wait_for_function(READY, arg="FMBoostUpscale")

    def _note(self, kind: str, text: str, place: str) -> None:
        """Keep what is wrong in our files. A page of help in a language that has none is asked for in vain first."""
        if kind == "error" and "FMBoost" in f"{text} {place}" and not place.endswith(".md"):
            self.errors.append(f"{text} ({place})")

    def close(self) -> None:
        self.context.close()

    def offers(self, canvas: str) -> bool:
        """Whether a person can choose the canvas; older pages have an unfinished new one, hidden."""
        find = "(id) => app.ui.settings.settingsLookup[id]?.type ?? 'hidden'"
        return canvas == CLASSIC or self.page.evaluate(find, NEW_CANVAS) != "hidden"

    def load(self, graph: dict[str, Any], name: str) -> None:
        self.page.evaluate(LOAD, [graph, name])

    def centre(self, node: str) -> None:
        """Bring a node to the middle of the screen, in its full size."""
        self.page.evaluate(CENTRE, node)

    def complaints(self) -> list[str]:
        """What dialogs and overlays say."""
        return self.page.locator(COMPLAINTS).all_inner_texts()

    def unknown(self) -> list[str]:
        """The types of the graph's nodes that the page cannot make or marks as faulty."""
        return self.page.evaluate(UNKNOWN)

    def dismiss(self) -> None:
        """Close what complains."""
        self.page.locator("[role=dialog] [aria-label=Close], [data-testid=error-overlay-dismiss]").first.click()
        self.page.locator(COMPLAINTS).first.wait_for(state="hidden")

    def wait_until(self, condition: str, place: Locator) -> None:
        """Wait until a function is true of an element."""
        self.page.wait_for_function(condition, arg=place.element_handle())

    def behind(self) -> list[list[str]]:
        """The links that pass behind a node: the types of both ends, and of the node."""
        return self.page.evaluate(BEHIND)

    def zoom(self) -> float:
        return self.page.evaluate("() => app.canvas.ds.scale")

    def library(self, text: str) -> Locator:
        """What the library of nodes finds for a text; older pages have another one."""
        search = self.page.locator(".side-bar-panel").get_by_placeholder("Search").first
        for _ in range(TRIES):
            if search.is_visible():
                break
            self.page.keyboard.press("n")  # a dialog that still closes would take it
            self.page.wait_for_timeout(SIDEBAR_MS)
        search.fill(text)
        return self.page.get_by_role("treeitem")

    def nodes(self) -> list[dict[str, Any]]:
        return self.page.evaluate(NODES)

    def id_of(self, kind: str) -> str:
        return next(node["id"] for node in self.nodes() if node["type"] == kind)

    def face(self, node: str) -> dict[str, Any] | None:
        return self.page.evaluate(FACE, node)

    def wait_for_lines(self, node: str, *lines: str) -> dict[str, Any]:
        """Wait until a node's face says these lines, and return it."""
        says = f"([id, lines]) => JSON.stringify(({FACE})(id)?.lines) === JSON.stringify(lines)"
        with contextlib.suppress(Exception):  # what it says instead tells more than that time ran out
            self.page.wait_for_function(says, arg=[node, list(lines)])
        face = self.face(node)
        assert face and face["lines"] == list(lines), face
        return face

    def type_into(self, node: str, widget: str, value: str) -> None:
        """Click on a number of a node and type another one."""
        if self.canvas == NEW:
            self.page.locator(f'[data-node-id="{node}"] [aria-label="{widget}"] input').click(force=True)
        else:
            self._click(*self.page.evaluate(PLACES, node)["rows"][widget])
            self.page.locator(".graphdialog input").wait_for()
        self.page.keyboard.press("Control+A")
        self.page.keyboard.type(value)
        self.page.keyboard.press("Enter")

    def _click(self, x: float, y: float) -> None:
        self.page.wait_for_timeout(DOUBLE_CLICK_MS)  # two clicks near each other would be a double-click
        self.page.mouse.click(x, y)

    def rectangle(self, node: str) -> list[float]:
        return self.page.evaluate(PLACES, node)["node"]

    def help(self, node: str) -> Locator:
        """Select a node by its title and press the button with the i."""
        left, top, right, _ = self.rectangle(node)
        self._click((left + right) / 2, top + 8)
        self.page.get_by_test_id("info-button").click()
        return self.page.locator(".node-help-content")

    def templates(self, pack: str) -> Locator:
        self.page.get_by_role("button", name="Templates").first.click()
        dialog = self.page.get_by_role("dialog")
        dialog.get_by_text(pack, exact=True).first.click()
        return dialog

    def run(self) -> tuple[str, str]:
        """Press Run and wait for the end: its kind, and the sentence of an error."""
        self.page.evaluate(LISTEN)
        self.page.get_by_role("button", name="Run", exact=True).first.click()
        kind, error = self.page.wait_for_function("() => window.ended", timeout=RUN_SECONDS * 1000).json_value()
        return kind, error

    def saved(self, node: str) -> list[dict[str, str]]:
        """The files that a Save node shows."""
        return self.page.wait_for_function(SAVED, arg=node).json_value()
