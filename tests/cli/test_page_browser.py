"""The page in a browser: what people click, type and read; nothing is run that it does not hold.

With Playwright and a Chromium; ``axe`` of web/node_modules, where it is, judges accessibility.
"""

import json
import shutil
from pathlib import Path

import pytest
from page_documents import HOSTILE, profile_of, small

import snncc
from snncc.cli.page import page
from snncc.cli.page.profiles import read_profile

pytestmark = pytest.mark.slow
AXE = Path(__file__).parents[2] / "web" / "node_modules" / "axe-core" / "axe.min.js"
VIEWS = ("graph", "populations", "passes", "verification", "activity", "energy")
FRAMES = 120
#: Milliseconds of the main thread for a frame, at 60 frames a second.
FRAME = 16


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip(
        "playwright.sync_api", reason="needs playwright: pip install playwright"
    )
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with api.sync_playwright() as playwright:
        try:
            started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        except api.Error as error:
            pytest.skip(f"needs a Chromium: apt-get install chromium ({error.message[:60]})")
        yield started
        started.close()


class Shown:
    """A page that is open, and what it complained of."""

    def __init__(self, browser, path, link="", **options):
        options = {"viewport": {"width": 1400, "height": 900}, **options}
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.faults, self.asked = [], []
        self.page.on("console", lambda message: self.faults.append(message.text))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("dialog", lambda dialog: self.faults.append(dialog.message))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(f"file://{path}{link}")
        self.page.wait_for_selector("html[data-ready]")

    def text(self, selector):
        return self.page.inner_text(selector)

    def settle(self):
        self.page.wait_for_timeout(300)


@pytest.fixture
def show(browser):
    opened = []

    def make(path, link="", **options):
        opened.append(Shown(browser, path, link, **options))
        return opened[-1]

    yield make
    for shown in opened:
        shown.context.close()
        assert shown.faults == []
        assert all(url.startswith(("file:", "blob:")) for url in shown.asked)


@pytest.fixture(scope="module")
def cnn_page(cnn, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "cnn.html"
    path.write_bytes(page(snncc.load(cnn)))
    return path


@pytest.fixture(scope="module")
def small_page(tmp_path_factory):
    """Of the small network, with a profile and names that would be markup."""
    folder = tmp_path_factory.mktemp("page")
    model = snncc.load(small((HOSTILE[0], HOSTILE[1])).save(folder / "net.snn"))
    (folder / "p.json").write_text(json.dumps(profile_of(model)))
    path = folder / "net.html"
    path.write_bytes(page(model, read_profile(folder / "p.json", model)))
    return path


def test_a_click_shows_the_details_of_a_box(show, cnn_page):
    shown = show(cnn_page)
    shown.page.keyboard.press("[")
    shown.page.click(".box.block[data-id='b:conv2'] .face")
    details = shown.text(".details")
    assert "examples/fashion_mnist/models.py:57" in details
    assert "32×16×3×3" in details
    assert shown.page.locator(".details .histogram rect").count() > 20
    assert shown.page.evaluate("location.hash") == "#conv2"
    assert shown.text("[role=treeitem][aria-selected=true] .name") == "conv2"


def test_a_sign_opens_and_closes_a_block(show, cnn_page):
    shown = show(cnn_page)
    shown.page.keyboard.press("[")
    shown.page.locator(".box.block[data-id='b:conv2'] .sign").click()
    shown.page.wait_for_selector(".box.open[data-id='b:conv2']")
    names = shown.page.locator("[role=treeitem][aria-level='2'] .name").all_inner_texts()
    assert names == ["QConv", "Reshape", "SpikeSum", "SliceSum"]
    shown.page.locator(".box[data-id='b:conv2'] .sign").click()
    shown.page.wait_for_selector(".box.block[data-id='b:conv2']")


def test_search_by_keyboard_goes_to_the_node(show, cnn_page):
    shown = show(cnn_page)
    shown.page.keyboard.press("/")
    shown.page.keyboard.type("fire3:sp")
    assert shown.page.get_attribute("#search", "aria-expanded") == "true"
    shown.page.keyboard.press("Enter")
    shown.page.wait_for_selector(".box.selected")
    assert shown.text(".details h2") == "fire3:spikes"
    assert shown.page.evaluate("location.hash") == "#fire3:spikes"


def test_arrows_walk_from_box_to_box(show, cnn_page):
    shown = show(cnn_page, "#conv1")
    shown.page.keyboard.press("[")
    shown.settle()
    shown.page.focus(".canvas")
    for key in ("ArrowDown", "ArrowDown", "ArrowUp"):
        shown.page.keyboard.press(key)
    assert shown.text(".details h2") == "fire1"
    shown.page.keyboard.press("Enter")
    shown.page.wait_for_selector(".box.open[data-id='b:fire1']")
    shown.page.keyboard.press("Escape")
    assert shown.page.locator(".box.selected").count() == 0


def test_the_outline_is_a_tree_for_keyboards(show, cnn_page):
    shown = show(cnn_page)
    shown.page.keyboard.press("[")
    shown.page.focus("[role=treeitem][tabindex='0']")
    for key in ("ArrowDown", "ArrowRight", "ArrowDown", "Enter"):
        shown.page.keyboard.press(key)
        shown.settle()
    assert shown.text(".details h2") == "bn1/acc0"


@pytest.mark.parametrize("place", [1, 2, 3, 4])
def test_stages_by_key(show, cnn_page, place):
    shown = show(cnn_page)
    shown.page.keyboard.press(str(place))
    shown.settle()
    names = ("imported", "integer", "quantised", "spiking")
    assert shown.page.inner_text(".stages [aria-checked=true]") == names[place - 1]
    expected = "as imported" if place == 1 else f"since {names[place - 2]}"
    assert expected in shown.text(".changes")


def test_a_link_leads_to_a_module_in_a_stage(show, cnn_page):
    shown = show(cnn_page, "#fire3?stage=integer")
    assert shown.text(".stages [aria-checked=true]") == "integer"
    assert shown.text(".details h2") == "fire3"
    assert "in other stages" in shown.text(".details")


def test_a_pass_marks_what_it_made(show, cnn_page):
    shown = show(cnn_page, "#?view=passes")
    shown.page.click("button[aria-label*='nodes of lower-to-spikes in spiking']")
    shown.page.wait_for_selector(".graph .dot")


def test_rows_of_tables_lead_to_the_graph(show, cnn_page):
    shown = show(cnn_page, "#?view=populations")
    shown.page.click("th button:has-text('changed')")
    assert shown.page.locator("[aria-sort=descending]").count() == 1
    shown.page.click("tbody th button:has-text('fire2')")
    shown.settle()
    assert shown.page.evaluate("document.body.dataset.view") == "graph"
    assert "fire2" in shown.text(".details h2")


def test_maps_and_rasters_of_the_samples_in_the_file(show, cnn_page):
    shown = show(cnn_page, "#?view=activity")
    shown.page.wait_for_selector("canvas.raster >> nth=1")
    assert shown.page.locator("canvas.map").count() == 5
    drawn = "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(v => v)"
    assert all(canvas.evaluate(drawn) for canvas in shown.page.locator("canvas").all()[:2])
    shown.page.select_option("#map-population", label="fire5")
    shown.page.fill("#map-channel", "3")
    shown.page.keyboard.press("Enter")
    shown.settle()
    assert "64 channels of 7×7" in shown.text("[role=status]")


def test_no_name_is_run(show, small_page):
    """Every view, every box: what would be markup is text, and what it asked for is not loaded."""
    shown = show(small_page)
    shown.page.keyboard.press("]")
    for view in VIEWS:
        shown.page.click(f"[role=tab]:has-text('{view}')")
        shown.settle()
    shown.page.click("[role=tab]:has-text('graph')")
    for row in range(shown.page.locator("[role=treeitem]").count()):
        shown.page.locator("[role=treeitem]").nth(row).click()
    assert shown.page.locator("img").count() == 0
    assert shown.page.locator("script").count() == 2
    shown.page.keyboard.press("/")
    shown.page.keyboard.type("script")
    shown.page.keyboard.press("Enter")
    assert HOSTILE[0] in shown.text(".details")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_accessible(show, small_page, view, scheme):
    if not AXE.exists():
        pytest.skip("needs axe-core: npm ci in web/")
    shown = show(small_page, f"#fire1?view={view}", color_scheme=scheme, bypass_csp=True)
    shown.page.add_script_tag(path=str(AXE))
    rules = "['wcag2a', 'wcag2aa', 'wcag21aa', 'best-practice']"
    found = shown.page.evaluate(f"axe.run({{runOnly: {rules}}})")["violations"]
    assert [(v["id"], v["nodes"][0]["target"]) for v in found] == []


def test_the_theme_can_be_chosen(show, cnn_page):
    shown = show(cnn_page, color_scheme="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = shown.page.evaluate(ground)
    for _ in range(2):
        shown.page.click(".theme")
    assert shown.page.inner_text(".theme") == "Theme: dark"
    assert shown.page.evaluate(ground) != light


def test_it_prints(show, cnn_page):
    shown = show(cnn_page, "#conv2")
    shown.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    boxes = "[...document.querySelectorAll('.graph .box')].map(box => box.dataset.id)"
    printed = shown.page.evaluate(boxes)
    assert {"n:0", "b:conv1", "b:fire5"} <= set(printed)
    assert shown.page.get_attribute(".graph", "viewBox").startswith("0 0 ")
    shown.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert shown.page.get_attribute(".graph", "viewBox") is None
    assert shown.page.pdf(print_background=True).startswith(b"%PDF")
    shown.page.emulate_media(media="print")
    assert not shown.page.is_visible(".search")
    assert shown.page.is_visible(".details")


PAN = """async ([frames, dy]) => {
  const canvas = document.querySelector('.canvas');
  const {left, top} = canvas.getBoundingClientRect();
  const wheel = {clientX: left + 50, clientY: top + 50, cancelable: true};
  for (let i = 0; i < frames; i += 1) {
    const deltaY = i % 60 < 30 ? dy : -dy; // there and back: boxes stay in view
    canvas.dispatchEvent(new WheelEvent('wheel', {...wheel, deltaY}));
    await new Promise(requestAnimationFrame);
  }
}"""


def many_nodes(model, copies):
    """The document of a model whose last stage is repeated, module by module."""
    from snncc.cli.page.document import document

    found = document(model)
    stage = found["stages"][-1]
    inner = [node for node in stage["nodes"] if node["op"] not in ("input", "output")]
    nodes = [stage["nodes"][0]]
    for copy in range(copies):
        start = len(nodes)
        for node in inner:
            inputs = [i - 1 + start if i else max(start - 1, 0) for i in node.get("inputs", [])]
            module = f"stage{copy % 4}.block{copy}.{node.get('module', 'rest')}"
            name = f"{copy}/{node['name']}"
            nodes.append({**node, "name": name, "module": module, "inputs": inputs})
    return {**found, "stages": [{**stage, "nodes": nodes}]}


def test_a_thousand_nodes_pan_within_a_frame(show, cnn, tmp_path, monkeypatch):
    """All blocks open, near and from afar: processor time of the main thread for a frame."""
    import snncc.cli.page as pages

    monkeypatch.setattr(pages, "document", lambda model, profile: many_nodes(model, 32))
    path = tmp_path / "many.html"
    path.write_bytes(page(snncc.load(cnn)))
    shown = show(path)
    assert shown.page.inner_text(".changes").startswith("1,0")
    shown.page.keyboard.press("]")
    shown.page.wait_for_selector(".graph .open >> nth=0", state="attached")
    for _ in range(8):
        shown.page.keyboard.press("+")
    shown.settle()
    session = shown.context.new_cdp_session(shown.page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def spent():
        metrics = session.send("Performance.getMetrics")["metrics"]
        return next(m["value"] for m in metrics if m["name"] == "TaskDuration")

    for key, step in (("", 40), ("", 150), ("0", 4)):
        if key:
            shown.page.keyboard.press(key)
            shown.settle()
        before = spent()
        shown.page.evaluate(PAN, [FRAMES, step])
        assert (spent() - before) * 1000 / FRAMES < FRAME
        drawn = shown.page.locator(".graph *").count()  # from afar all is a few paths
        assert (10 if key else 60) < drawn < 3000
