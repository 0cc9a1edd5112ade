"""What no model could do is refused when it is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kilonova.core.errors import InvalidRequest
from kilonova.studio.tasks import (
    ColorGuidedGeneration,
    Control,
    ImageRequest,
    ImageVariation,
    Inpainting,
    TextToImage,
    VirtualTryOn,
)

PICTURE = np.zeros((5, 7, 3), np.uint8)
TEXT = TextToImage(text="a cat")


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (Control, {"picture": PICTURE, "strength": 1.5}, r"strength: 1\.5 is not between 0\.0 and 1"),
        (Control, {"picture": PICTURE.astype(np.float32)}, r"picture: float32 \[5, 7, 3\] is not a uint8 picture"),
        (ColorGuidedGeneration, {"text": "a", "colors": ()}, "colors: 0 are not between 1 and 10"),
        (ColorGuidedGeneration, {"text": "a", "colors": ((0, 0, 256),)}, "numbers from 0 to 255"),
        (ImageVariation, {"images": (PICTURE,) * 6}, "images: 6 are not between 1 and 5"),
        (ImageVariation, {"images": (PICTURE,), "similarity": 0.1}, r"similarity: 0\.1 is not between 0\.2 and 1"),
        (Inpainting, {"image": PICTURE, "mask": np.ones((5, 7), np.uint8)}, r"mask: uint8 \[5, 7\] is not a bool mask"),
        (Inpainting, {"image": PICTURE, "mask": "  "}, "mask: no words"),
        (
            VirtualTryOn,
            {"source": PICTURE, "reference": PICTURE, "mask": np.ones((7, 5), bool)},
            r"mask: bool \[7, 5\]",
        ),
        (ImageRequest, {"task": TEXT, "width": 64}, "width and height come together"),
        (ImageRequest, {"task": TEXT, "width": 64, "height": 0}, "64 x 0 is no size"),
        (ImageRequest, {"task": TEXT, "num_images": 6}, "num_images: 6"),
        (ImageRequest, {"task": TEXT, "cfg_scale": float("nan")}, "cfg_scale"),
        (ImageRequest, {"task": TEXT, "num_inference_steps": 0}, "num_inference_steps"),
        (ImageRequest, {"task": TEXT, "quality": "best"}, "quality: 'best' is not one of standard, premium"),
    ],
)
def test_impossible_requests_name_the_member_at_fault(kind: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        kind(**options)
