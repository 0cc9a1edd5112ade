"""`kilonova image`: files, tasks, pictures in a terminal."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.tiny_canvas import write_tiny_canvas
from typer.testing import CliRunner

from kilonova.cli.image import app
from kilonova.cli.image_preview import detect_protocol, render, sixel
from kilonova.core.errors import InvalidRequest, ModelNotFound
from kilonova.models.condition import ControlType
from kilonova.studio import tasks
from kilonova.studio.canvas import Canvas


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_canvas(tmp_path_factory.mktemp("canvas") / "model")


def draw(folder: Path, *arguments: object) -> list[str]:
    command = [*map(str, arguments), "--model", str(folder), "--device", "cpu"]
    return CliRunner().invoke(app, command, catch_exceptions=False).stdout.split()


def picture(path: Path, colour: tuple[int, ...] = (200, 30, 30), size: tuple[int, int] = (40, 30)) -> Path:
    Image.new("RGBA" if len(colour) == 4 else "RGB", size, colour).save(path)
    return path


def test_pictures_are_written_with_all_that_draws_them_again(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "apple.png"
    arguments = ["a red apple", "--width", 96, "--height", 80, "--style", "design-sketch", "--negative", "green"]
    written = draw(folder, *arguments, "-o", output, "-n", 2, "--seed", 7, "--steps", 3, "--cfg-scale", 4)
    assert written == [str(tmp_path / "new" / f"apple-{number}.png") for number in (1, 2)]
    task = tasks.TextToImage(text="a red apple", negative_text="green", style="DESIGN_SKETCH")
    request = tasks.ImageRequest(task=task, width=96, height=80, seed=8, num_inference_steps=3, cfg_scale=4)
    with Image.open(written[1]) as image:
        told = image.text  # type: ignore[attr-defined]
        assert np.array_equal(np.asarray(image), Canvas.load(folder).generate(request).images[0])
    assert told.pop("software").startswith("kilonova 0.")
    assert told == {
        "prompt": "a red apple",
        "negative_prompt": "green",
        "style": "design-sketch",
        "model": str(folder),
        "task": "TextToImage",
        "cfg_scale": "4.0",
        "num_inference_steps": "3",
        "native_size": "64x64",
        "seed": "8",
    }
    draw(folder, "a kite", "-o", tmp_path / "kite.jpg", "--width", 64, "--height", 64, "--quality", "premium")
    with Image.open(tmp_path / "kite.jpg") as image:
        assert (image.format, image.size) == ("JPEG", (64, 64))


def test_every_task_is_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tasks.ImageTask] = []

    class Fake:
        def generate(self, request: tasks.ImageRequest, on_step: object) -> tasks.ImageResult:
            asked.append(request.task)
            image = np.zeros((4, 5, 3), np.uint8)
            return tasks.ImageResult(images=(image,), native_size=(5, 4), num_inference_steps=1, seed=1)

    monkeypatch.setattr("kilonova.studio.loading.load_canvas", lambda folder, device: Fake())
    (tmp_path / "model_index.json").write_text("{}")
    red, clear = picture(tmp_path / "red.png"), picture(tmp_path / "clear.png", (0, 0, 0, 0))
    mask = picture(tmp_path / "mask.png", (255, 255, 255))
    with Image.open(mask) as image:
        image.paste((0, 0, 0), (3, 4, 9, 9))
        image.save(mask)
    output = ("-o", tmp_path / "out.png")
    for arguments in (
        ["a cat", "--control", red, "--segmentation", "--control-strength", 0.3],
        ["a cat", "--colors", "#ff8800, 0044CC", "--like", clear],
        ["--like", red, "--like", clear, "--similarity", 0.5],
        ["a cat", "--image", red, "--mask", mask],
        ["--image", red, "--mask-prompt", "the cat"],
        ["a cat", "--image", red, "--mask", mask, "--outpaint", "--precise"],
        ["--image", red, "--remove-background"],
        ["--image", red, "--wear", clear, "--garment", "upper-body", "--merge", "seamless", "--keep", "face"],
    ):
        draw(tmp_path, *arguments, *output)
    control, colours, like, inpaint, remove, outpaint, cut, wear = asked
    assert isinstance(control, tasks.TextToImage)
    assert control.control is not None
    assert (control.control.type, control.control.strength) == (ControlType.SEGMENTATION, 0.3)
    assert isinstance(colours, tasks.ColorGuidedGeneration)
    assert colours.colors == ((255, 136, 0), (0, 68, 204))
    assert colours.reference is not None
    assert (colours.reference == 255).all()
    assert isinstance(like, tasks.ImageVariation)
    assert (len(like.images), like.similarity) == (2, 0.5)
    assert isinstance(inpaint, tasks.Inpainting)
    assert isinstance(inpaint.mask, np.ndarray)
    assert np.array_equal(inpaint.mask, np.pad(np.ones((5, 6), bool), ((4, 21), (3, 31))))
    assert isinstance(remove, tasks.Inpainting)
    assert (remove.mask, remove.text) == ("the cat", "")
    assert isinstance(outpaint, tasks.Outpainting)
    assert outpaint.mode == "PRECISE"
    assert isinstance(cut, tasks.BackgroundRemoval)
    assert isinstance(wear, tasks.VirtualTryOn)
    assert wear.mask == tasks.GarmentMask(garment="UPPER_BODY")
    assert (wear.merge_style, wear.preserve) == ("SEAMLESS", {"face"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say what to draw"),
        (["a cat", "-o", "cat.gif"], r"cat\.gif does not end in one of \.png"),
        (["--remove-background", "--image", "{red}", "-o", "cut.jpg"], "cannot be transparent"),
        (["a cat", "--mask-prompt", "it"], "--mask-prompt needs --image"),
        (["a cat", "--image", "{red}"], "needs one of --mask and --mask-prompt"),
        (["a cat", "--image", "{red}", "--colors", "#123456"], "--colors is for new pictures"),
        (["a cat", "--colors", "#12345"], "'#12345' is not a color"),
        (["a cat", "--style", "photo-realism"], "did you mean 'PHOTOREALISM'"),
        (["--image", "{red}", "--wear", "{red}", "--mask-prompt", "it", "--garment", "boots"], "exactly one of"),
        (["a cat", "--control", "{text}"], r"text\.png: The image must be a PNG"),
    ],
)
def test_mistakes_are_told(folder: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "text.png").write_text("no picture")
    places = {"red": picture(tmp_path / "red.png"), "text": tmp_path / "text.png"}
    with pytest.raises(InvalidRequest, match=message):
        draw(folder, "-o", tmp_path / "out.png", *[part.format(**places) for part in arguments])
    assert not (tmp_path / "out.png").exists()


def test_an_unknown_model_is_told() -> None:
    with pytest.raises(ModelNotFound, match="canvass"):
        draw(Path("canvass"), "a cat")


def scene() -> Image.Image:
    pixels = np.zeros((12, 20, 3), np.uint8)
    pixels[:, :10] = (255, 0, 0)
    pixels[6:, 10:] = (0, 255, 51)
    return Image.fromarray(pixels)


def test_blocks_hold_two_pixels_a_character() -> None:
    lines = render(scene(), "blocks", 20).splitlines()
    assert len(lines) == 6
    found = [re.findall(r"\x1b\[38;2;(\d+;\d+;\d+);48;2;(\d+;\d+;\d+)m▀", line) for line in lines]
    assert found[0][0] == ("255;0;0", "255;0;0")
    assert found[3][15] == ("0;255;51", "0;255;51")
    assert all(len(line) == 20 for line in found)
    tall = Image.new("RGBA", (30, 120), (0, 0, 0, 0))
    assert render(tall, "blocks", 80) == ("\x1b[38;2;255;255;255;48;2;255;255;255m▀" * 16 + "\x1b[0m\n") * 32


def test_sixels_are_painted_as_a_terminal_does() -> None:
    text = sixel(scene())
    body = re.fullmatch(r'\x1bPq"1;1;20;12(.*)\x1b\\', text, re.DOTALL)
    assert body is not None
    colours: dict[int, tuple[int, ...]] = {}
    pixels = np.zeros((12, 20, 3))
    x = top = colour = 0
    for token in re.findall(r"#\d+;2;\d+;\d+;\d+|#\d+|!\d+[?-~]|[?-~]|\$|-", body[1]):
        if token == "$":
            x = 0
        elif token == "-":
            x, top = 0, top + 6
        elif token.startswith("#"):
            colour, *rest = map(int, token[1:].split(";"))
            if rest:
                colours[colour] = tuple(rest[1:])
        else:
            count = int(token[1:-1]) if token.startswith("!") else 1
            for bit in range(6):
                if (ord(token[-1]) - 63) >> bit & 1:
                    pixels[top + bit, x : x + count] = colours[colour]
            x += count
    assert np.abs(pixels / 100 * 255 - np.asarray(scene())).max() <= 2


def test_other_terminals_get_the_file_itself() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8))
    parts = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", render(noise, "kitty", 30))
    assert len(parts) > 2
    assert parts[0][0] == "a=T,f=100,c=30,r=15,m=1"
    assert [keys for keys, _ in parts[1:]] == ["m=1"] * (len(parts) - 2) + ["m=0"]
    iterm = re.fullmatch(r"\x1b]1337;File=inline=1;width=30;height=15;.*:(.*)\a\n", render(noise, "iterm2", 30))
    assert iterm is not None
    for data in ("".join(part for _, part in parts), iterm[1]):
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert np.array_equal(np.asarray(image), np.asarray(noise))


def test_terminals_are_known_by_their_environment() -> None:
    assert detect_protocol({"TERM": "xterm-kitty"}) == "kitty"
    assert detect_protocol({"TERM": "xterm-256color", "TERM_PROGRAM": "ghostty"}) == "kitty"
    assert detect_protocol({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}) == "iterm2"
    assert detect_protocol({"TERM": "tmux-256color", "KITTY_WINDOW_ID": "1"}) == "blocks"
    assert detect_protocol({"TERM": "xterm-256color"}) == "blocks"
