"""How models of diffusers are asked for pictures, in the terms of the studio."""

from __future__ import annotations

from typing import Any

from kilonova.studio.diffusers.families import Family
from kilonova.studio.settings import SamplingSettings, StepCounts
from kilonova.studio.sizes import Size

_STYLES = {
    "3D_ANIMATED_FAMILY_FILM": "3D animated family film, soft light, rounded shapes",
    "DESIGN_SKETCH": "design sketch, pencil and marker on paper, construction lines",
    "FLAT_VECTOR_ILLUSTRATION": "flat vector illustration, simple shapes, solid colours",
    "GRAPHIC_NOVEL_ILLUSTRATION": "graphic novel illustration, bold ink outlines, dramatic shadows",
    "MAXIMALISM": "maximalism, rich patterns, many colours, ornate detail",
    "MIDCENTURY_RETRO": "midcentury retro illustration, muted colours, geometric shapes, print texture",
    "PHOTOREALISM": "photorealistic, natural light, sharp detail",
    "SOFT_DIGITAL_PAINTING": "soft digital painting, visible brush strokes, gentle light",
}
_LARGEST_ASPECT = 4.0
# Of a FLUX that takes no guidance, as it was distilled for few steps besides.
_FEW_STEPS = StepCounts(standard=4, premium=8)
# Steps between the sides of buckets, of the side of the square one.
_BUCKET_STEP = 1 / 16


def sampling_settings(pipeline: Any, family: Family) -> SamplingSettings:
    """The sizes that the model was trained near, the square one first, words for styles, and numbers of steps."""
    components = pipeline.components
    network = components["transformer"] if "transformer" in components else components["unet"]
    # The networks of FLUX do not tell, its pipeline does.
    latents = network.config.get("sample_size") or pipeline.default_sample_size
    is_few_step = family.is_distilled and not network.config.get("guidance_embeds")
    return SamplingSettings(
        base_tokens=latents**2,
        sizes=buckets(latents * pipeline.vae_scale_factor, family.size_multiple),
        styles=_STYLES,
        num_inference_steps=_FEW_STEPS if is_few_step else family.num_inference_steps,
    )


def buckets(side: int, multiple: int) -> tuple[Size, ...]:
    """Sizes (width, height) of about the area of a square of `side`, of aspects up to 4, in multiples of `multiple`.

    The square comes first (arXiv 2307.01952, section 2.3 and appendix I).
    """
    step = max(round(side * _BUCKET_STEP / multiple), 1) * multiple
    square = max(round(side / multiple), 1) * multiple
    sizes = [(square, square)]
    for width in range(step, 4 * side, step):
        height = max(round(side**2 / width / step), 1) * step
        if max(width, height) <= _LARGEST_ASPECT * min(width, height) and width != height:
            sizes.append((width, height))
    return tuple(sizes)
