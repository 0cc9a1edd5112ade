"""Every kind of the rendered world by name, in a fixed order: new kinds go to the end of their list."""

from __future__ import annotations

from kilonova.data.world.kind import Kind
from kilonova.data.world.nature import NATURE
from kilonova.data.world.objects import OBJECTS
from kilonova.data.world.shapes import SHAPES

KINDS: dict[str, Kind] = {kind.name: kind for kind in (*SHAPES, *NATURE, *OBJECTS)}
TEXTURES: tuple[str, ...] = ("plain", "striped", "dotted", "checkered", "outlined", "shiny")
