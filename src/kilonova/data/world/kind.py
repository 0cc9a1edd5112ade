"""What a kind of thing is: its outlines fitted to the unit square, its name, and how it may lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from kilonova.data.world.paths import Path, widened

CONTOUR_WIDTH = 0.055
Group = Literal["shape", "nature", "animal", "vehicle", "object"]


@dataclass(frozen=True, eq=False)
class Kind:
    """One kind. `paths`, back to front, fill [-1, 1] along the longer side and are centred.

    `max_tilt` is how far, in degrees, a sampled thing turns. `top` is the half width of a flat top on which others can
    stand, 0 for none. `stands` says that it has a flat foot. `holds` says that a smaller thing fits inside.
    `extent` holds all corners of what is solid, `outlined_extent` those with an outline of `CONTOUR_WIDTH` around it.
    """

    name: str
    plural: str
    group: Group
    paths: tuple[Path, ...]
    max_tilt: float
    top: float
    stands: bool
    holds: bool
    extent: np.ndarray
    outlined_extent: np.ndarray

    @property
    def foot(self) -> float:
        """How far below the centre the lowest point lies, in unit coordinates; the highest is as far above."""
        return float(self.extent[:, 1].max())


def kind(
    name: str,
    group: Group,
    *outlines: tuple[str, np.ndarray],
    plural: str | None = None,
    max_tilt: float = 8,
    top: float = 0,
    stands: bool = False,
    holds: bool = False,
) -> Kind:
    """A kind from (fill, points) pairs in any scale, back to front; it is fitted and centred here."""
    solid = np.concatenate([points for fill, points in outlines if fill != "hole"])
    low, high = solid.min(0), solid.max(0)
    middle, scale = (low + high) / 2, 2 / (high - low).max()
    paths = tuple(Path((points - middle) * scale, fill) for fill, points in outlines)
    rims = [widened(path.points, CONTOUR_WIDTH) for path in paths if path.fill != "hole"]
    return Kind(
        name=name, plural=plural or name + "s", group=group, paths=paths, max_tilt=max_tilt, top=top, stands=stands,
        holds=holds, extent=(solid - middle) * scale, outlined_extent=np.concatenate(rims),
    )  # fmt: skip
