"""Chooses what things look like, keeping withheld combinations to their split, and a background they stand out from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from kilonova.data.world.backgrounds import backdrop_colours
from kilonova.data.world.chance import pick, shuffled, uniform
from kilonova.data.world.colours import BACKGROUND_COLOURS, COLOURS, contour, distance
from kilonova.data.world.held_out import HELD_OUT, is_held_out
from kilonova.data.world.kinds import KINDS, TEXTURES
from kilonova.data.world.scene import BACKGROUNDS, COLOURED_BACKGROUNDS, Background, SceneText

Look = tuple[str, str, str]
Split = Literal["train", "held_out"]
_STANDS_OUT = 30.0
_APART = 45.0
_PLAIN_SHARE = 0.5


class Looks:
    """Draws (kind, colour, texture) one after the other, all kinds different and all colours if `distinct_colours`.

    In the held-out split the first thing drawn is a withheld combination; all others are as in training. `plain` draws
    no textures, `draw(..., plain=True)` none for this one thing.
    """

    def __init__(
        self, rng: np.random.Generator, split: Split, *, plain: bool = False, distinct_colours: bool = False
    ) -> None:
        self.drawn: list[Look] = []
        self._rng = rng
        self._withhold_next = split == "held_out"
        self._plain = plain
        self._distinct_colours = distinct_colours

    def draw(
        self, fits: Callable[[str], bool] = lambda kind: True, *, apart_from: Look | None = None, plain: bool = False
    ) -> Look:
        """The next look, of a kind that `fits`; its colour is plainly another than that of `apart_from`."""
        kinds = [kind for kind in KINDS if fits(kind) and kind not in {look[0] for look in self.drawn}]
        used = {look[1] for look in self.drawn} if self._distinct_colours else set()
        if apart_from is not None:
            used |= {name for name in COLOURS if distance(COLOURS[name], COLOURS[apart_from[1]]) < _APART}
        colours = [name for name in COLOURS if name not in used]
        plain = plain or self._plain
        if self._withhold_next:
            look = self._withheld(kinds, colours, plain)
        else:
            look = self._usual(pick(self._rng, kinds), colours, plain)
        self._withhold_next = False
        self.drawn.append(look)
        return look

    def _usual(self, kind: str, colours: Sequence[str], plain: bool) -> Look:
        colour = pick(self._rng, [name for name in colours if not is_held_out(kind, name)])
        patterned = [name for name in TEXTURES if name != "plain" and not is_held_out(kind, name)]
        plain = plain or self._rng.random() < _PLAIN_SHARE
        return kind, colour, "plain" if plain else pick(self._rng, patterned)

    def _withheld(self, kinds: Sequence[str], colours: Sequence[str], plain: bool) -> Look:
        pairs = [
            (kind, look)
            for kind, look in HELD_OUT
            if kind in kinds and (look in colours or (look in TEXTURES and not plain))
        ]
        kind, withheld = pick(self._rng, pairs)
        _, colour, texture = self._usual(kind, colours, plain)
        return (kind, withheld, texture) if withheld in COLOURS else (kind, colour, withheld)


def choose_background(rng: np.random.Generator, looks: Sequence[Look], text: SceneText | None) -> Background:
    """A random background from which every thing and the text stand out, or the one that comes nearest to it."""
    needed = {COLOURS[colour] for _, colour, _ in looks}
    needed |= {contour(colour) for _, colour, texture in looks if texture == "outlined"}
    if text is not None:
        needed.add(COLOURS[text.colour])
    best, best_contrast = Background(), -1.0
    for kind in shuffled(rng, BACKGROUNDS):
        # The dots of the night sky could be taken for stars.
        if kind == "night" and any(look[0] == "star" for look in looks):
            continue
        colours = shuffled(rng, list(BACKGROUND_COLOURS)) if kind in COLOURED_BACKGROUNDS else [None]
        for colour in colours:
            background = Background(kind, colour, uniform(rng, 0.54, 0.7))
            contrast = min(
                (distance(one, behind) for one in needed for behind in backdrop_colours(background)), default=100.0
            )
            if contrast >= _STANDS_OUT:
                return background
            if contrast > best_contrast:
                best, best_contrast = background, contrast
    return best
