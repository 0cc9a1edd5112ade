"""Bodies of every Canvas task, with small pictures."""

import base64
import copy
import io

from hypothesis import strategies as st
from PIL import Image, ImageDraw
from tests.serve.bedrock.request_strategies import documents, extreme_texts

SIDE = 64


def encode(image, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return base64.b64encode(file.getvalue()).decode()


def decode(text):
    return Image.open(io.BytesIO(base64.b64decode(text)))


def picture(color="orange", size=(SIDE, SIDE), mode="RGB"):
    image = Image.new(mode, size, color)
    ImageDraw.Draw(image).ellipse((8, 8, 40, 40), fill="navy" if mode == "RGB" else None)
    return image


def mask(box=(16, 16, 47, 47), size=(SIDE, SIDE), inside="black", outside="white"):
    image = Image.new("RGB", size, outside)
    ImageDraw.Draw(image).rectangle(box, fill=inside)
    return image


PICTURE, MASK = encode(picture()), encode(mask())
BODIES = {
    "TEXT_IMAGE": {
        "taskType": "TEXT_IMAGE",
        "textToImageParams": {
            "text": "a red apple",
            "negativeText": "a green leaf",
            "style": "DESIGN_SKETCH",
            "conditionImage": PICTURE,
            "controlMode": "SEGMENTATION",
            "controlStrength": 0.5,
        },
        "imageGenerationConfig": {
            "width": 320,
            "height": 320,
            "quality": "standard",
            "cfgScale": 6.5,
            "numberOfImages": 1,
            "seed": 7,
        },
    },
    "COLOR_GUIDED_GENERATION": {
        "taskType": "COLOR_GUIDED_GENERATION",
        "colorGuidedGenerationParams": {"text": "a ball", "colors": ["#FF0000", "#00ff7f"], "referenceImage": PICTURE},
        "imageGenerationConfig": {"width": 320, "height": 320},
    },
    "IMAGE_VARIATION": {
        "taskType": "IMAGE_VARIATION",
        "imageVariationParams": {"images": [PICTURE, PICTURE], "similarityStrength": 0.4, "text": "a ball"},
        "imageGenerationConfig": {"width": 320, "height": 320},
    },
    "INPAINTING": {
        "taskType": "INPAINTING",
        "inPaintingParams": {"image": PICTURE, "maskImage": MASK, "text": "a ball"},
        # As published examples have it.
        "imageGenerationConfig": {"width": 1024, "height": 100, "seed": 3},
    },
    "OUTPAINTING": {
        "taskType": "OUTPAINTING",
        "outPaintingParams": {"image": PICTURE, "maskImage": MASK, "outPaintingMode": "PRECISE", "text": "a table"},
    },
    "BACKGROUND_REMOVAL": {"taskType": "BACKGROUND_REMOVAL", "backgroundRemovalParams": {"image": PICTURE}},
    "VIRTUAL_TRY_ON": {
        "taskType": "VIRTUAL_TRY_ON",
        "virtualTryOnParams": {
            "sourceImage": PICTURE,
            "referenceImage": PICTURE,
            "maskType": "IMAGE",
            "imageBasedMask": {"maskImage": MASK},
            "mergeStyle": "SEAMLESS",
            "returnMask": True,
        },
    },
}


def changed(task, path, value):
    """The task's body with what is at `path`, in dotted form, set to a value; an Ellipsis takes it away."""
    body = copy.deepcopy(BODIES[task])
    *parents, name = [int(part) if part.isdigit() else part for part in path.split(".")]
    inner = body
    for part in parents:
        inner = inner.setdefault(part, {}) if isinstance(inner, dict) else inner[part]
    if value is ...:
        del inner[name]
    else:
        inner[name] = value
    return body


def _paths(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        yield from _paths(item, (*path, name))


@st.composite
def mutated_bodies(draw):
    """A task's body with one to three members replaced, added, taken away or, of pictures, damaged."""
    body = copy.deepcopy(draw(st.sampled_from(sorted(BODIES.items())))[1])
    for _ in range(draw(st.integers(1, 3))):
        paths = [path for path in _paths(body) if path]
        if not paths:
            break
        *parents, name = draw(st.sampled_from(paths))
        inner = body
        for part in parents:
            inner = inner[part]
        change = draw(st.sampled_from(("replace", "remove", "add", "damage", "edge")))
        if change == "remove":
            del inner[name]
        elif change == "add" and isinstance(inner, dict):
            inner[draw(st.text(max_size=8) | st.sampled_from(["maskPrompt", "text", "seed"]))] = draw(documents)
        elif change == "damage" and isinstance(inner[name], str):
            inner[name] = draw(damaged(inner[name]))
        elif change == "edge":
            edges = [0, -1, 1, 2**31, 1e300, 320.0, True, None, "", [], {}, "#12345\n", "black", "a" * 1025]
            inner[name] = draw(st.sampled_from(edges))
        else:
            inner[name] = draw(documents | extreme_texts)
    return body


@st.composite
def damaged(draw, text):
    """A string in base64 with bytes of what it holds flipped or cut off; other strings with letters changed."""
    try:
        data = bytearray(base64.b64decode(text, validate=True))
    except ValueError:
        return text[::-1] + draw(extreme_texts)
    for _ in range(draw(st.integers(1, 4))):
        if data:
            data[draw(st.integers(0, len(data) - 1))] ^= draw(st.integers(1, 255))
    return base64.b64encode(data[: draw(st.integers(0, len(data)))]).decode()
