"""The schemas of Canvas's own JSON, one a task."""

from __future__ import annotations

from typing import Any

# Of pictures that are asked for; given ones are bound by `ImageLimits` alone.
MIN_SIDE = 320
MAX_SIDE = 4096
SIDE_MULTIPLE = 16
DEFAULT_SIDE = 1024
MAX_IMAGES = 5
MAX_SEED = 2_147_483_646


def _object(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def _one_of(*values: str) -> dict[str, Any]:
    return {"enum": list(values)}


def _number(low: float, high: float) -> dict[str, Any]:
    return {"type": "number", "minimum": low, "maximum": high}


def _integer(low: int, high: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": low, "maximum": high}


_TEXT = {"type": "string", "minLength": 1, "maxLength": 1024}
_PICTURE = {"type": "string", "minLength": 1}
_TEXTS = {"text": _TEXT, "negativeText": _TEXT}
_MASKS = {"maskPrompt": _TEXT, "maskImage": _PICTURE}
_SHAPE = _one_of("CONTOUR", "BOUNDING_BOX", "DEFAULT")
_SWITCH = _one_of("ON", "OFF", "DEFAULT")
_SIDE = {**_integer(MIN_SIDE, MAX_SIDE), "multipleOf": SIDE_MULTIPLE}

_CONFIG = {
    "quality": _one_of("standard", "premium"),
    "cfgScale": _number(1.1, 10),
    "numberOfImages": _integer(1, MAX_IMAGES),
    "seed": _integer(0, MAX_SEED),
}
# Edits answer at the size of the picture they are given; what is said of sizes is heard and ignored.
_EDIT_CONFIG = _object({**_CONFIG, "width": {"type": "integer"}, "height": {"type": "integer"}})
_GENERATION_CONFIG = _object({**_CONFIG, "width": _SIDE, "height": _SIDE})

_TEXT_IMAGE = _object(
    {
        **_TEXTS,
        "style": _one_of(
            "3D_ANIMATED_FAMILY_FILM",
            "DESIGN_SKETCH",
            "FLAT_VECTOR_ILLUSTRATION",
            "GRAPHIC_NOVEL_ILLUSTRATION",
            "MAXIMALISM",
            "MIDCENTURY_RETRO",
            "PHOTOREALISM",
            "SOFT_DIGITAL_PAINTING",
        ),
        "conditionImage": _PICTURE,
        "controlMode": _one_of("CANNY_EDGE", "SEGMENTATION"),
        "controlStrength": _number(0, 1),
    },
    "text",
)
_COLOR_GUIDED = _object(
    {
        **_TEXTS,
        "colors": {
            "type": "array",
            "minItems": 1,
            "maxItems": 10,
            "items": {"type": "string", "maxLength": 7, "pattern": "^#[0-9A-Fa-f]{6}$"},
        },
        "referenceImage": _PICTURE,
    },
    "text",
    "colors",
)
_VARIATION = _object(
    {
        **_TEXTS,
        "images": {"type": "array", "minItems": 1, "maxItems": MAX_IMAGES, "items": _PICTURE},
        "similarityStrength": _number(0.2, 1.0),
    },
    "images",
)
_INPAINTING = _object({**_TEXTS, **_MASKS, "image": _PICTURE}, "image")
_OUTPAINTING = _object(
    {**_TEXTS, **_MASKS, "image": _PICTURE, "outPaintingMode": _one_of("DEFAULT", "PRECISE")}, "image"
)
_BACKGROUND_REMOVAL = _object({"image": _PICTURE}, "image")
_GARMENT_STYLING = _object(
    {
        "longSleeveStyle": _one_of("SLEEVE_DOWN", "SLEEVE_UP"),
        "tuckingStyle": _one_of("UNTUCKED", "TUCKED"),
        "outerLayerStyle": _one_of("CLOSED", "OPEN"),
    }
)
_GARMENTS = (
    *("UPPER_BODY", "LOWER_BODY", "FULL_BODY", "FOOTWEAR"),
    *("LONG_SLEEVE_SHIRT", "SHORT_SLEEVE_SHIRT", "NO_SLEEVE_SHIRT", "OTHER_UPPER_BODY"),
    *("LONG_PANTS", "SHORT_PANTS", "OTHER_LOWER_BODY"),
    *("LONG_DRESS", "SHORT_DRESS", "FULL_BODY_OUTFIT", "OTHER_FULL_BODY"),
    *("SHOES", "BOOTS", "OTHER_FOOTWEAR"),
)
_TRY_ON = _object(
    {
        "sourceImage": _PICTURE,
        "referenceImage": _PICTURE,
        "maskType": _one_of("IMAGE", "GARMENT", "PROMPT"),
        "imageBasedMask": _object({"maskImage": _PICTURE}, "maskImage"),
        "garmentBasedMask": _object(
            {"maskShape": _SHAPE, "garmentClass": _one_of(*_GARMENTS), "garmentStyling": _GARMENT_STYLING},
            "garmentClass",
        ),
        "promptBasedMask": _object({"maskShape": _SHAPE, "maskPrompt": _TEXT}, "maskPrompt"),
        "maskExclusions": _object({"preserveBodyPose": _SWITCH, "preserveHands": _SWITCH, "preserveFace": _SWITCH}),
        "mergeStyle": _one_of("BALANCED", "SEAMLESS", "DETAILED"),
        "returnMask": {"type": "boolean"},
    },
    "sourceImage",
    "referenceImage",
    "maskType",
)


def _task(parameters: str, schema: dict[str, Any], config: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    properties = {"taskType": {"type": "string"}, parameters: schema, "imageGenerationConfig": config}
    return parameters, _object(properties, parameters)


# For each task the member that holds its parameters, and the schema of a whole body.
TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "TEXT_IMAGE": _task("textToImageParams", _TEXT_IMAGE, _GENERATION_CONFIG),
    "COLOR_GUIDED_GENERATION": _task("colorGuidedGenerationParams", _COLOR_GUIDED, _GENERATION_CONFIG),
    "IMAGE_VARIATION": _task("imageVariationParams", _VARIATION, _GENERATION_CONFIG),
    "INPAINTING": _task("inPaintingParams", _INPAINTING, _EDIT_CONFIG),
    "OUTPAINTING": _task("outPaintingParams", _OUTPAINTING, _EDIT_CONFIG),
    "BACKGROUND_REMOVAL": _task("backgroundRemovalParams", _BACKGROUND_REMOVAL, _EDIT_CONFIG),
    "VIRTUAL_TRY_ON": _task("virtualTryOnParams", _TRY_ON, _EDIT_CONFIG),
}
ANY_TASK = {"type": "object", "properties": {"taskType": _one_of(*TASKS)}, "required": ["taskType"]}
