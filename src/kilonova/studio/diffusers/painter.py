"""Drawing with a pipeline of diffusers what the studio's tasks plan."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image

from kilonova.core.device import choose_device, choose_dtype
from kilonova.core.errors import Cancelled, InvalidRequest
from kilonova.studio.diffusers.families import Family
from kilonova.studio.diffusers.folder import diffusers_class, family_of, load_controlnet, load_pipeline
from kilonova.studio.diffusers.from_picture import flow_pipeline, flow_start, keeping
from kilonova.studio.diffusers.palette import colour_words, patches_of, recoloured
from kilonova.studio.diffusers.sampling import sampling_settings
from kilonova.studio.drawing import Drawing
from kilonova.studio.painter import OnStep
from kilonova.studio.tasks import Control

# What similarity and the share of the way that a variation goes anew add up to.
_SIMILARITY_AND_STRENGTH = 1.15
# That share from patches of colour, which leave more open than a reference in those colours does.
_PALETTE_STRENGTH = 0.8
_REFERENCE_STRENGTH = 0.6

_Call = tuple[Any, dict[str, Any]]


class DiffusersPainter:
    """A `Painter` around the pipelines of a diffusers folder, which share its networks.

    Pictures are varied from noised ones, one of several by turns. Colours are named in the text, and drawn from patches
    of them or from the reference moved towards them. A control goes through the ControlNet in the folder
    `controlnet_canny_edge` or `controlnet_segmentation` beside the model's own.
    """

    def __init__(self, pipeline: Any, family: Family, folder: Path) -> None:
        self._family = family
        self._folder = folder
        self._pipeline = pipeline
        self._others: dict[str, Any] = {}
        self.settings = sampling_settings(pipeline, family)
        pipeline.set_progress_bar_config(disable=True)

    @classmethod
    def load(cls, folder: Path, device: str | torch.device = "cpu") -> Self:
        """Read a folder of SDXL, SD3, FLUX or Sana in float32, or bfloat16 beyond the CPU.

        CheckpointError for one that does not load, ConfigError for another class or for a missing library.
        """
        place = choose_device(str(device))
        dtype = torch.float32 if place.type == "cpu" else choose_dtype("auto", place)
        family = family_of(folder)
        return cls(load_pipeline(folder, family, place, dtype), family, folder)

    def paint(
        self, drawing: Drawing, seeds: Sequence[int], cfg_scale: float, steps: int, on_step: OnStep | None = None
    ) -> list[np.ndarray]:
        """As `Painter.paint`. Pictures are drawn one after the other, so that none depends on those beside it.

        InvalidRequest for what the model has no way to do.
        """
        return [
            self._draw(drawing, index, seed, cfg_scale, steps, partial(_step_done, on_step, index, len(seeds)))
            for index, seed in enumerate(seeds)
        ]

    def _draw(
        self,
        drawing: Drawing,
        index: int,
        seed: int,
        cfg_scale: float,
        steps: int,
        callback: Callable[..., dict[str, Any]],
    ) -> np.ndarray:
        generator = torch.Generator().manual_seed(seed)
        pipeline, arguments = self._call(drawing, index, seed, steps, generator)
        start = arguments.pop("start", None)
        common = {
            "prompt": _text(drawing),
            "width": drawing.size[0],
            "height": drawing.size[1],
            "generator": generator,
            "use_resolution_binning": False,
            "callback_on_step_end": callback if start is None else keeping(start, callback),
            "output_type": "np",
            **self._guidance(drawing.negative_text, cfg_scale),
        }
        known = inspect.signature(pipeline.__call__).parameters
        arguments |= {name: value for name, value in common.items() if name in known}
        # Some pipelines encode pictures with noise of the global generator.
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            found = pipeline(**arguments).images[0]
        return np.rint(np.nan_to_num(found).clip(0, 1) * 255).astype(np.uint8)

    def _guidance(self, negative_text: str, cfg_scale: float) -> dict[str, Any]:
        if not self._family.is_distilled:
            return {"guidance_scale": cfg_scale, "negative_prompt": negative_text}
        if not negative_text:
            return {"guidance_scale": cfg_scale}
        return {"guidance_scale": 1.0, "true_cfg_scale": cfg_scale, "negative_prompt": negative_text}

    def _call(self, drawing: Drawing, index: int, seed: int, steps: int, generator: torch.Generator) -> _Call:
        """The pipeline for a drawing, and the arguments that depend on which it is."""
        name = self._family.name
        if drawing.control is not None:
            return self._controlled(drawing.control, steps)
        if drawing.source is not None and drawing.mask is not None:
            if drawing.references:
                raise InvalidRequest(f"reference: {name} models of diffusers do not draw a part after a reference")
            return self._from_picture(drawing.source, drawing.mask, 1.0, steps, generator)
        if drawing.colors and drawing.references:
            start = recoloured(_opaque(drawing.references[0]), drawing.colors)
            return self._from_picture(start, None, _REFERENCE_STRENGTH, steps, generator)
        if drawing.colors:
            start = patches_of(drawing.colors, *drawing.size, np.random.default_rng(seed))
            return self._from_picture(start, None, _PALETTE_STRENGTH, steps, generator)
        if drawing.references:
            start = _opaque(drawing.references[index % len(drawing.references)])
            strength = min(round(_SIMILARITY_AND_STRENGTH - drawing.similarity, 4), 1.0)
            return self._from_picture(start, None, strength, steps, generator)
        return self._pipeline, {"num_inference_steps": steps}

    def _from_picture(
        self, start: np.ndarray, mask: np.ndarray | None, strength: float, steps: int, generator: torch.Generator
    ) -> _Call:
        """Start from uint8 `[h, w, 3]` with noise of the share `strength`, keeping what `mask` bool `[h, w]` leaves."""
        picture = Image.fromarray(start)
        mask_picture = None if mask is None else Image.fromarray(mask.astype(np.uint8) * 255)
        name = self._family.variation if mask is None else self._family.inpainting
        if name is None:
            pipeline = self._other("from picture", partial(flow_pipeline, self._pipeline))
            flow = flow_start(pipeline, picture, mask_picture, strength, steps, generator)
            return pipeline, {
                "latents": flow.latents,
                "sigmas": flow.sigmas,
                "num_inference_steps": len(flow.sigmas),
                "start": flow,
            }
        # Of these steps the pipeline takes the share `strength`, and at least one is needed.
        count = max(steps, math.ceil(1 / strength))
        arguments = {"image": picture, "strength": strength, "num_inference_steps": count}
        if mask_picture is not None:
            arguments["mask_image"] = mask_picture
        return self._other(name, partial(self._sharing, name)), arguments

    def _controlled(self, control: Control, steps: int) -> _Call:
        family = self._family
        folder = self._folder / f"controlnet_{control.type.name.lower()}"
        if not folder.is_dir():
            raise InvalidRequest(
                f"control: this {family.name} model has no {folder.name}, a {family.controlnet}, in its folder"
            )

        def controlled() -> Any:
            base = self._pipeline
            return self._sharing(family.control, controlnet=load_controlnet(folder, family, base.device, base.dtype))

        return self._other(folder.name, controlled), {
            family.control_argument: Image.fromarray(control.picture),
            "controlnet_conditioning_scale": control.strength,
            "num_inference_steps": steps,
        }

    def _sharing(self, name: str, **components: Any) -> Any:
        """A pipeline of the class `name` around the same networks; `from_pipe` would bring all to one dtype."""
        pipeline_class = diffusers_class(name)
        parts = {**self._pipeline.config, **self._pipeline.components, **components}
        known = inspect.signature(pipeline_class.__init__).parameters
        return pipeline_class(**{part: value for part, value in parts.items() if part in known})

    def _other(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self._others:
            self._others[name] = make()
            self._others[name].set_progress_bar_config(disable=True)
        return self._others[name]


def _step_done(
    on_step: OnStep | None, index: int, count: int, pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]
) -> dict[str, Any]:
    """What diffusers calls after a step of picture `index` of `count`; it takes the tensors back."""
    total = pipeline.num_timesteps
    if on_step is not None and on_step(index * total + step + 1, count * total) is False:
        raise Cancelled("the picture was given up before it was done")
    return tensors


def _text(drawing: Drawing) -> str:
    return f"{drawing.text}, in {colour_words(drawing.colors)}" if drawing.colors else drawing.text


def _opaque(picture: np.ndarray) -> np.ndarray:
    """What can be seen of `picture` uint8 `[h, w, 4]`, its border going on over what is transparent around it."""
    rows, columns = (np.nonzero((picture[..., 3] > 0).any(axis))[0] for axis in (1, 0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    height, width = picture.shape[:2]
    return np.pad(
        picture[top:bottom, left:right, :3], ((top, height - bottom), (left, width - right), (0, 0)), mode="edge"
    )
