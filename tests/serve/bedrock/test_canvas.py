"""Canvas's bodies: what becomes of each task, and what each fault is called."""

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given
from tests.serve.canvas_bodies import PICTURE, SIDE, changed, encode, mask, mutated_bodies, picture

from kilonova.core.errors import InvalidRequest
from kilonova.models.condition import ControlType
from kilonova.serve.bedrock import canvas
from kilonova.serve.bedrock.errors import to_bedrock_error
from kilonova.studio import tasks


def parse(body):
    return canvas.parse(json.dumps(body).encode())


def ask(task, path="taskType", value=None):
    return parse(changed(task, path, task if value is None else value)).request


def test_every_task():
    request = ask("TEXT_IMAGE")
    task = request.task
    assert (task.text, task.negative_text, task.style) == ("a red apple", "a green leaf", "DESIGN_SKETCH")
    assert (task.control.type, task.control.strength) == (ControlType.SEGMENTATION, 0.5)
    assert np.array_equal(task.control.picture, np.array(picture()))
    assert (request.width, request.height, request.num_images, request.seed) == (320, 320, 1, 7)
    colored = ask("COLOR_GUIDED_GENERATION").task
    assert colored.colors == ((255, 0, 0), (0, 255, 127))
    assert colored.reference is not None
    variation = ask("IMAGE_VARIATION").task
    assert (len(variation.images), variation.similarity) == (2, 0.4)
    assert isinstance(ask("BACKGROUND_REMOVAL").task, tasks.BackgroundRemoval)


def test_defaults():
    request = parse({"taskType": "TEXT_IMAGE", "textToImageParams": {"text": "x"}}).request
    assert request == tasks.ImageRequest(task=tasks.TextToImage(text="x"), width=1024, height=1024)
    assert (request.seed, request.cfg_scale, request.quality, request.num_images) == (12, 6.5, "standard", 1)
    only_picture = changed("TEXT_IMAGE", "textToImageParams", {"text": "x", "conditionImage": PICTURE})
    control = parse(only_picture).request.task.control
    assert (control.type, control.strength) == (ControlType.CANNY_EDGE, 0.7)
    assert ask("IMAGE_VARIATION", "imageVariationParams.similarityStrength", ...).task.similarity == 0.7


def test_masks_of_edits_are_black_where_the_picture_is_made_anew_and_those_of_outpainting_white():
    black = np.zeros((SIDE, SIDE), bool)
    black[16:48, 16:48] = True
    inpainting = ask("INPAINTING")
    assert np.array_equal(inpainting.task.mask, black)
    assert (inpainting.width, inpainting.height, inpainting.seed) == (None, None, 3)
    outpainting = ask("OUTPAINTING").task
    assert np.array_equal(outpainting.mask, ~black)
    assert outpainting.mode == "PRECISE"
    assert np.array_equal(ask("VIRTUAL_TRY_ON").task.mask, black)
    words = changed("OUTPAINTING", "outPaintingParams", {"image": PICTURE, "maskPrompt": "the ball"})
    assert parse(words).request.task.mask == "the ball"


def test_virtual_try_on():
    garment = {
        "garmentClass": "LONG_SLEEVE_SHIRT",
        "maskShape": "BOUNDING_BOX",
        "garmentStyling": {"longSleeveStyle": "SLEEVE_UP", "outerLayerStyle": "OPEN"},
    }
    body = changed("VIRTUAL_TRY_ON", "virtualTryOnParams.garmentBasedMask", garment)
    del body["virtualTryOnParams"]["imageBasedMask"]
    body["virtualTryOnParams"]["maskType"] = "GARMENT"
    body["virtualTryOnParams"]["maskExclusions"] = {"preserveFace": "OFF"}
    task = parse(body).request.task
    expected = tasks.GarmentMask(
        garment="LONG_SLEEVE_SHIRT", shape="BOUNDING_BOX", long_sleeves=False, tucked=None, open=True
    )
    assert task.mask == expected
    assert (task.preserve, task.merge_style, task.return_mask) == ({"pose", "hands"}, "SEAMLESS", True)
    assert ask("VIRTUAL_TRY_ON").task.preserve == frozenset()
    for kind, member in (("GARMENT", "garmentBasedMask"), ("PROMPT", "promptBasedMask")):
        with pytest.raises(InvalidRequest, match=rf"required key \[{member}\] not found|extraneous key"):
            ask("VIRTUAL_TRY_ON", "virtualTryOnParams.maskType", kind)


@pytest.mark.parametrize(
    ("task", "path", "value", "message"),
    [
        ("TEXT_IMAGE", "taskType", "DRAW", "#/taskType: DRAW is not a valid enum value"),
        ("TEXT_IMAGE", "taskType", ..., "#: required key [taskType] not found"),
        ("TEXT_IMAGE", "textToImageParams", ..., "#: required key [textToImageParams] not found"),
        ("TEXT_IMAGE", "inPaintingParams", {}, "#: extraneous key [inPaintingParams] is not permitted"),
        ("TEXT_IMAGE", "textToImageParams.images", [], "#/textToImageParams: extraneous key [images] is not permitted"),
        ("TEXT_IMAGE", "textToImageParams.text", ..., "#/textToImageParams: required key [text] not found"),
        ("TEXT_IMAGE", "textToImageParams.text", "", "#/textToImageParams/text: expected minLength: 1, actual: 0"),
        (
            "TEXT_IMAGE",
            "textToImageParams.text",
            "x" * 1469,
            "#/textToImageParams/text: expected maxLength: 1024, actual: 1469",
        ),
        ("TEXT_IMAGE", "textToImageParams.text", 5, "#/textToImageParams/text: expected type: String, found: Integer"),
        ("TEXT_IMAGE", "textToImageParams.style", "CUBISM", "style: CUBISM is not a valid enum value"),
        ("TEXT_IMAGE", "textToImageParams.controlMode", "DEPTH", "controlMode: DEPTH is not a valid enum value"),
        ("TEXT_IMAGE", "textToImageParams.controlStrength", 1.5, "controlStrength: 1.5 is not less or equal to 1"),
        (
            "TEXT_IMAGE",
            "imageGenerationConfig.width",
            304,
            "#/imageGenerationConfig/width: 304 is not greater or equal",
        ),
        ("TEXT_IMAGE", "imageGenerationConfig.width", 4112, "width: 4112 is not less or equal to 4096"),
        ("TEXT_IMAGE", "imageGenerationConfig.height", 1000, "height: 1000 is not a multiple of 16"),
        ("TEXT_IMAGE", "imageGenerationConfig.height", 1296, "The aspect ratio must be between 1:4 and 4:1"),
        ("TEXT_IMAGE", "imageGenerationConfig", {"width": 2064, "height": 2048}, "number of pixels must be at most"),
        ("TEXT_IMAGE", "imageGenerationConfig.quality", "best", "quality: best is not a valid enum value"),
        ("TEXT_IMAGE", "imageGenerationConfig.cfgScale", 1.05, "cfgScale: 1.05 is not greater or equal to 1.1"),
        ("TEXT_IMAGE", "imageGenerationConfig.cfgScale", 10.5, "cfgScale: 10.5 is not less or equal to 10"),
        ("TEXT_IMAGE", "imageGenerationConfig.numberOfImages", 6, "numberOfImages: 6 is not less or equal to 5"),
        ("TEXT_IMAGE", "imageGenerationConfig.numberOfImages", 0, "numberOfImages: 0 is not greater or equal to 1"),
        ("TEXT_IMAGE", "imageGenerationConfig.seed", 2**31 - 1, "seed: 2147483647 is not less or equal to 2147483646"),
        ("TEXT_IMAGE", "imageGenerationConfig.seed", -1, "seed: -1 is not greater or equal to 0"),
        ("TEXT_IMAGE", "imageGenerationConfig.steps", 4, "#/imageGenerationConfig: extraneous key [steps]"),
        (
            "COLOR_GUIDED_GENERATION",
            "colorGuidedGenerationParams.colors",
            [],
            "expected minimum item count: 1, found: 0",
        ),
        (
            "COLOR_GUIDED_GENERATION",
            "colorGuidedGenerationParams.colors",
            ["#000000"] * 11,
            "#/colorGuidedGenerationParams/colors: expected maximum item count: 10, found: 11",
        ),
        (
            "COLOR_GUIDED_GENERATION",
            "colorGuidedGenerationParams.colors.1",
            "#12G456",
            "#/colorGuidedGenerationParams/colors/1: string [#12G456] does not match pattern",
        ),
        ("IMAGE_VARIATION", "imageVariationParams.images", [], "images: expected minimum item count: 1, found: 0"),
        ("IMAGE_VARIATION", "imageVariationParams.images", [PICTURE] * 6, "expected maximum item count: 5, found: 6"),
        ("IMAGE_VARIATION", "imageVariationParams.similarityStrength", 0.1, "0.1 is not greater or equal to 0.2"),
        ("IMAGE_VARIATION", "imageVariationParams.images.1", "%", "base64"),
        ("INPAINTING", "inPaintingParams.maskPrompt", "a ball", "exactly one of the keys [maskPrompt] and [maskImage]"),
        ("INPAINTING", "inPaintingParams.maskImage", ..., "exactly one of the keys [maskPrompt] and [maskImage]"),
        ("INPAINTING", "inPaintingParams.image", PICTURE[:160], "truncated or corrupt"),
        ("INPAINTING", "inPaintingParams.image", "data:image/png;base64," + PICTURE, "base64"),
        ("INPAINTING", "inPaintingParams.image", encode(picture((1, 2, 3, 9), mode="RGBA")), "transparent"),
        ("INPAINTING", "inPaintingParams.image", encode(picture(), "GIF"), "PNG or JPEG"),
        (
            "INPAINTING",
            "inPaintingParams.image",
            encode(picture(size=(4096, 2048))),
            "number of pixels must be at most",
        ),
        ("INPAINTING", "inPaintingParams.image", encode(picture(size=(400, 50))), "aspect ratio"),
        ("INPAINTING", "inPaintingParams.maskImage", PICTURE, "no other colors than pure black and white"),
        ("INPAINTING", "inPaintingParams.maskImage", encode(mask(inside=(1, 1, 1))), "pure black and white"),
        ("INPAINTING", "inPaintingParams.maskImage", encode(mask(size=(64, 80))), "the size of the image, 64 x 64"),
        ("OUTPAINTING", "outPaintingParams.outPaintingMode", "EXACT", "EXACT is not a valid enum value"),
        ("BACKGROUND_REMOVAL", "backgroundRemovalParams.text", "x", "extraneous key [text] is not permitted"),
        ("VIRTUAL_TRY_ON", "virtualTryOnParams.text", "x", "extraneous key [text] is not permitted"),
        ("VIRTUAL_TRY_ON", "virtualTryOnParams.maskType", "SKETCH", "maskType: SKETCH is not a valid enum value"),
        ("VIRTUAL_TRY_ON", "virtualTryOnParams.returnMask", "yes", "expected type: Boolean, found: String"),
    ],
)
def test_faults_are_worded_as_the_service_words_them(task, path, value, message):
    with pytest.raises(InvalidRequest) as caught:
        parse(changed(task, path, value))
    assert message in str(caught.value)
    text = to_bedrock_error(caught.value).message
    if text.startswith("Malformed input request: #"):
        assert text.endswith(", please reformat your input and try again.")
    else:
        assert path.split(".")[0] in text


def test_every_fault_of_a_body_is_told_at_once():
    body = changed("TEXT_IMAGE", "textToImageParams.text", "")
    body["imageGenerationConfig"] |= {"seed": -1, "width": 17}
    with pytest.raises(InvalidRequest) as caught:
        parse(body)
    for name in ("text: expected minLength", "seed: -1", "width: 17 is not greater", "width: 17 is not a multiple"):
        assert name in str(caught.value)


@given(mutated_bodies())
def test_mutated_bodies_are_understood_or_refused(body):
    with contextlib.suppress(InvalidRequest):
        assert parse(body).request.num_images


def test_bodies_that_are_no_objects():
    for body in (b"", b"null", b"[]", b'"TEXT_IMAGE"', b"{", b"\xff", b"[" * 100_000):
        with pytest.raises(InvalidRequest):
            canvas.parse(body)


def test_the_answer_holds_the_mask_only_where_there_is_one():
    image = np.full((16, 24, 3), 7, np.uint8)
    made = {"native_size": (24, 16), "num_inference_steps": 2, "seed": 5}
    answer = json.loads(canvas.response([tasks.ImageResult(images=(image, image), **made)], "canvas"))
    assert list(answer) == ["images"]
    assert len(answer["images"]) == 2
    with_mask = tasks.ImageResult(images=(image,), mask=np.eye(16, 24, dtype=bool), **made)
    answer = json.loads(canvas.response([with_mask], "canvas"))
    returned = parse(
        changed("INPAINTING", "inPaintingParams", {"image": answer["images"][0], "maskImage": answer["maskImage"]})
    )
    assert np.array_equal(returned.request.task.mask, with_mask.mask)
