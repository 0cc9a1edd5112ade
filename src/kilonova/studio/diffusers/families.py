"""What tells the families of diffusers' picture models apart, as data."""

from __future__ import annotations

from dataclasses import dataclass

from kilonova.studio.settings import StepCounts


@dataclass(frozen=True, kw_only=True)
class Family:
    """The classes of one family in diffusers, and what they want to be told.

    `variation` and `inpainting` None say that there are no such pipelines, and that `from_picture` starts the pipeline
    of texts from a picture instead. `controlnet` is the network that a control picture goes through, `control` the
    pipeline around it, and `control_argument` what that calls the picture. `is_distilled` says that `guidance_scale`
    is an input of the network and that a negative text needs `true_cfg_scale`. Sides of pictures are multiples of
    `size_multiple`.
    """

    name: str
    text: str
    variation: str | None = None
    inpainting: str | None = None
    control: str
    controlnet: str
    control_argument: str = "control_image"
    is_distilled: bool = False
    size_multiple: int = 16
    num_inference_steps: StepCounts


_FAMILIES = (
    Family(
        name="SDXL",
        text="StableDiffusionXLPipeline",
        variation="StableDiffusionXLImg2ImgPipeline",
        inpainting="StableDiffusionXLInpaintPipeline",
        control="StableDiffusionXLControlNetPipeline",
        controlnet="ControlNetModel",
        control_argument="image",
        num_inference_steps=StepCounts(standard=30, premium=50),
    ),
    Family(
        name="SD3",
        text="StableDiffusion3Pipeline",
        variation="StableDiffusion3Img2ImgPipeline",
        inpainting="StableDiffusion3InpaintPipeline",
        control="StableDiffusion3ControlNetPipeline",
        controlnet="SD3ControlNetModel",
        num_inference_steps=StepCounts(standard=28, premium=50),
    ),
    Family(
        name="FLUX",
        text="FluxPipeline",
        variation="FluxImg2ImgPipeline",
        inpainting="FluxInpaintPipeline",
        control="FluxControlNetPipeline",
        controlnet="FluxControlNetModel",
        is_distilled=True,
        num_inference_steps=StepCounts(standard=28, premium=50),
    ),
    Family(
        name="Sana",
        text="SanaPipeline",
        control="SanaControlNetPipeline",
        controlnet="SanaControlNetModel",
        size_multiple=32,
        num_inference_steps=StepCounts(standard=20, premium=40),
    ),
)
FAMILIES = {family.text: family for family in _FAMILIES}
