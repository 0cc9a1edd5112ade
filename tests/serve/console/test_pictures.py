"""Pictures as a new user makes and changes them, in a real browser, with a tiny random model behind."""

import base64
import io
import json
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
from PIL import Image, ImageDraw
from tests.serve.conftest import run_server
from tests.serve.console.conftest import eventually
from tests.serve.console.test_sections import BROKEN_REFERENCES, NAMELESS
from tests.tiny_canvas import write_tiny_canvas

CANVAS = "amazon.nova-canvas-v1:0"
DONE = "document.querySelector('.running').hidden"


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    """A server of a tiny picture model under the name that has prices."""
    directory = tmp_path_factory.mktemp("gallery")
    with run_server(directory, "--model", f"{CANVAS}={write_tiny_canvas(directory / 'canvas')}") as running:
        yield running


@pytest.fixture
def studio(gallery, open_page):
    """The page, and the bodies that it sends."""
    page = open_page(gallery, path="/#/pictures", ready="#prompt")
    bodies = []
    page.on("request", lambda request: bodies.append(request.post_data_json) if "/invoke" in request.url else None)
    return page, bodies


def pixels(data, mode="RGB"):
    return np.array(Image.open(io.BytesIO(data)).convert(mode))


def sent(text):
    return Image.open(io.BytesIO(base64.b64decode(text)))


def given(size=(96, 64)):
    image = Image.new("RGB", size, "orange")
    ImageDraw.Draw(image).ellipse((8, 8, 40, 40), fill="navy")
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def give(page, slot, data):
    chosen = {"name": "given.png", "mimeType": "image/png", "buffer": data}
    page.get_by_role("group", name=slot, exact=True).locator("input[type=file]").set_input_files(chosen)


def choose_task(page, name):
    page.get_by_role("radio", name=name, exact=True).check()


def make(page, name):
    """Asks for pictures with the button of a name; the files that come."""
    page.locator(".prompt").get_by_role("button", name=name).click()
    eventually(page, DONE)
    files = []
    for link in page.locator(".results").get_by_role("link", name="Download").all():
        with page.expect_download() as download:
            link.click()
        files.append(download.value.path().read_bytes())
    return files


def fact(page, name):
    return page.locator(f'.results [data-fact="{name}"] dd').inner_text()


def test_a_new_user_makes_pictures(gallery, studio):
    page, bodies = studio
    assert page.evaluate("document.activeElement.id") == "prompt"
    page.keyboard.type("a red apple")
    page.get_by_label("Width").fill("480")
    page.get_by_label("Height").fill("320")
    page.get_by_label("Style").select_option("DESIGN_SKETCH")
    page.get_by_label("Pictures", exact=True).fill("2")
    page.get_by_label("Seed").fill("7")
    page.get_by_label("Negative prompt").fill("a leaf")
    page.locator("#prompt").press("Enter")
    page.locator(".results figure").nth(1).wait_for()
    config = {"width": 480, "height": 320, "numberOfImages": 2, "quality": "standard", "cfgScale": 6.5, "seed": 7}
    parameters = {"text": "a red apple", "negativeText": "a leaf", "style": "DESIGN_SKETCH"}
    assert bodies == [{"taskType": "TEXT_IMAGE", "textToImageParams": parameters, "imageGenerationConfig": config}]
    assert [fact(page, name) for name in ("count", "size", "cost")] == ["2 pictures", "480 × 320", "$0.08"]
    eventually(page, "document.querySelector('[data-fact=drawn]') !== null")
    assert "in 2 steps" in fact(page, "drawn")
    assert page.locator(".pictures .totals").inner_text() == "2 pictures · $0.08"
    with urllib.request.urlopen(f"{gallery.url}/kilonova/usage?by=model", timeout=30) as response:
        (row,) = [row for row in json.load(response)["rows"] if row["model"] == CANVAS]
    assert (row["images"], float(row["price_usd"])) == (2, 0.08)

    # Colours, and a seed of its own.
    choose_task(page, "Colours")
    page.get_by_role("button", name="Remove colour 3").click()
    page.get_by_label("Colour 1", exact=True).fill("#00ff7f")
    page.get_by_role("button", name="Add a colour").click()
    page.get_by_label("Seed").fill("")
    page.get_by_label("Pictures", exact=True).fill("1")
    page.get_by_label("Size", exact=True).select_option("512x512")
    (made,) = make(page, "Create")
    colours = bodies[1]["colorGuidedGenerationParams"]["colors"]
    assert (len(colours), colours[0], colours[2]) == (3, "#00ff7f", "#808080")
    assert page.get_by_role("button", name=f"seed {bodies[1]['imageGenerationConfig']['seed']}").is_visible()
    assert pixels(made).shape == (512, 512, 3)

    # What was made stays in this browser, with what it was made from.
    page.reload()
    history = page.get_by_role("navigation", name="Earlier pictures")
    history.get_by_role("button", name="a red apple", exact=True).nth(1).click()
    assert page.locator(".results figure").count() == 2
    assert page.get_by_label("Seed").input_value() == "7"
    assert page.get_by_label("Style").input_value() == "DESIGN_SKETCH"
    page.get_by_role("button", name="Forget the picture: a red apple").first.click()
    assert history.locator("li").count() == 1


def test_a_painted_part_is_replaced_and_the_code_does_the_same(studio, tmp_path):
    page, bodies = studio
    data = given()
    choose_task(page, "Replace")
    page.locator(".prompt").get_by_role("button", name="Replace").click()
    assert page.get_by_text("Choose a picture first.").is_visible()
    give(page, "Picture", data)
    canvas = page.locator(".mask-stage canvas")
    box = canvas.bounding_box()

    def at(x, y):
        return box["x"] + x / 96 * box["width"], box["y"] + y / 64 * box["height"]

    page.mouse.move(*at(20, 30))
    page.mouse.down()
    page.mouse.move(*at(70, 30), steps=4)
    page.mouse.up()
    page.get_by_role("radio", name="Erase").check()
    page.mouse.click(*at(70, 30))
    page.locator("#prompt").fill('a "blue" ball for $5')
    page.get_by_label("Seed").fill("3")
    (made,) = make(page, "Replace")
    body = bodies[0]["inPaintingParams"]
    mask = sent(body["maskImage"])
    assert (mask.format, mask.size) == ("PNG", (96, 64))
    levels = np.array(mask.convert("RGB"))
    assert set(np.unique(levels)) == {0, 255}
    assert (levels == levels[..., :1]).all()
    assert base64.b64decode(body["image"]) == data
    painted = levels[..., 0] == 0
    assert [bool(painted[y, x]) for y, x in ((30, 20), (30, 45), (30, 70), (50, 45))] == [True, True, False, False]
    assert np.array_equal(pixels(made)[~painted], pixels(data)[~painted])
    assert not np.array_equal(pixels(made)[painted], pixels(data)[painted])

    slider = page.get_by_label("Before and after")
    slider.press("End")
    assert page.evaluate("getComputedStyle(document.querySelector('.compare .after')).clipPath").count("100%") == 1

    page.get_by_role("tab", name="Code").click()
    assert page.get_by_role("heading", name="What you just asked").is_visible()
    for name in ("picture.png", "mask.png"):
        with page.expect_download() as download:
            page.get_by_role("button", name=name).click()
        download.value.save_as(tmp_path / name)
    for language, command in (
        ("curl", ["bash", "-c"]),
        ("openai", [sys.executable, "-c"]),
        ("boto3", [sys.executable, "-c"]),
    ):
        page.get_by_role("tab", name=language).click()
        code = page.locator(".pictures .code-panel [role=tabpanel]:not([hidden]) pre").text_content()
        done = subprocess.run([*command, code], capture_output=True, text=True, timeout=120, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        if language == "curl":
            answer = json.loads((tmp_path / "answer.json").read_text())["images"][0]
            (tmp_path / "made-1.png").write_bytes(base64.b64decode(answer))
        again = (tmp_path / "made-1.png").read_bytes()
        assert np.array_equal(pixels(again), pixels(made)), language
        (tmp_path / "made-1.png").unlink()


def test_a_picture_is_extended_by_keyboard(studio):
    page, bodies = studio
    choose_task(page, "Extend")
    transparent = io.BytesIO()
    Image.new("RGBA", (80, 64), (0, 0, 0, 0)).save(transparent, "PNG")
    give(page, "Picture", transparent.getvalue())
    page.get_by_role("button", name="Add a margin").click()
    page.get_by_text("120 × 96").wait_for()
    canvas = page.locator(".mask-stage canvas")
    canvas.press("Space")
    page.get_by_role("button", name="Invert").click()
    page.get_by_role("button", name="Undo").click()
    page.locator("#prompt").fill("a meadow")
    page.get_by_label("Border").select_option("PRECISE")
    (made,) = make(page, "Extend")
    body = bodies[0]["outPaintingParams"]
    assert (pixels(base64.b64decode(body["image"])) == 255).all()
    marked = np.array(sent(body["maskImage"])) == 255
    expected = np.ones((96, 120), bool)
    expected[16:80, 20:100] = False
    y, x = np.mgrid[:96, :120] + 0.5
    assert np.array_equal(marked, expected | (np.hypot(x - 60, y - 48) <= 0.045 * 120))
    assert (pixels(made)[~marked] == 255).all()

    # And the result is what the next one starts from.
    choose_task(page, "Vary")
    page.get_by_role("button", name="Use as input").click()
    page.get_by_label("Similarity").press("Home")
    make(page, "Vary")
    assert bodies[1]["imageVariationParams"]["similarityStrength"] == 0.2
    assert np.array_equal(pixels(base64.b64decode(bodies[1]["imageVariationParams"]["images"][0])), pixels(made))


def test_refusals_are_told_in_the_words_of_the_api_and_drawing_can_be_stopped(studio):
    page, bodies = studio
    choose_task(page, "Try on")
    give(page, "Person or room", given())
    give(page, "What to put on", given())
    page.get_by_label("Garment", exact=True).select_option("LONG_DRESS")
    make(page, "Try on")
    alert = page.locator(".pictures .problem")
    assert "segmenter" in alert.inner_text()
    assert bodies[0]["virtualTryOnParams"]["garmentBasedMask"] == {"maskShape": "DEFAULT", "garmentClass": "LONG_DRESS"}
    page.get_by_role("radio", name="With the brush").check()
    make(page, "Try on")
    assert "(virtualTryOnParams.imageBasedMask" in alert.inner_text()

    choose_task(page, "Create")
    page.route("**/invoke", lambda route: None)
    page.locator("#prompt").fill("a ball")
    page.locator("#prompt").press("Enter")
    page.get_by_role("button", name="Stop").wait_for()
    page.keyboard.press("Escape")
    eventually(page, DONE)
    assert alert.is_hidden()
    assert page.locator(".results").is_hidden()


def test_every_task_is_named_fits_a_narrow_screen_and_needs_a_model(gallery, family, open_page):
    page = open_page(gallery, path="/#/pictures", ready="#prompt", viewport={"width": 360, "height": 640})
    for name in ("Create", "Colours", "Vary", "Replace", "Extend", "Cut out", "Try on"):
        choose_task(page, name)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, name
    page.keyboard.press("Alt+s")
    assert page.get_by_role("tab", name="Settings").is_visible()
    assert page.evaluate(NAMELESS) == []
    assert page.evaluate(BROKEN_REFERENCES) == []
    without = open_page(family, path="/#/pictures", ready=".empty")
    assert "kilonova serve --model canvas=FOLDER" in without.locator(".empty").inner_text()
    assert without.locator("#prompt").is_hidden()
