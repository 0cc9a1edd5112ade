"""Drawn scenes as samples for a segmenter: names of things and grounds, and phrases that single a thing out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kilonova.data.pictures.segments import Form, SegmentSample, asked, mentions
from kilonova.data.pictures.world import WorldSource
from kilonova.data.world.backgrounds import REGIONS
from kilonova.data.world.chance import pick, shuffled, whole
from kilonova.data.world.colours import COLOURS
from kilonova.data.world.describe import Description, describe, unique_descriptions
from kilonova.data.world.kinds import KINDS
from kilonova.data.world.referring import Referring, referring_expressions
from kilonova.data.world.render import Rendered, render
from kilonova.data.world.sampling import sample_scene
from kilonova.data.world.scene import Scene

_MAX_PHRASES = 4
_MAX_ABSENT = 5
# How many scenes are looked through for one that shows what it should.
_TRIES = 64
_SYLLABLES = ("ba", "do", "fe", "gi", "ku", "la", "mo", "ni", "po", "ra", "se", "tu", "va", "wi", "zo", "ple", "tri")


class WorldSegments:
    """The scenes of a `WorldSource`.

    Kinds of `held_out_names` are shown and never named; with `ask_held_out` each scene shows one, and every phrase
    names one.
    """

    def __init__(self, source: WorldSource, held_out_names: Sequence[str] = (), *, ask_held_out: bool = False) -> None:
        self.name = source.name
        self.weight = source.weight
        self._source = source
        self._held_out_names = tuple(held_out_names)
        self._ask_held_out = ask_held_out

    def __len__(self) -> int:
        return self._source.scenes

    def sample(
        self, index: int, width: int, height: int, generator: np.random.Generator, form: Form | None = None
    ) -> SegmentSample:
        """As `Segments`; a scene of which no phrase can be told is asked for by names."""
        scene, phrases = self._scene(index, generator)
        rendered = render(scene, (width, height))
        if form is None:
            form = "phrase" if generator.random() < 0.5 else "names"
            count = whole(generator, 1, _MAX_PHRASES)
        else:
            count = 1
        masks = [*rendered.masks]
        if form == "phrase" and phrases:
            texts: dict[str, list[int]] = {
                one.text: [one.index] for one in shuffled(generator, phrases)[:count] if masks[one.index].any()
            }
            if count > 1:
                texts |= self._absent_phrase(scene, generator) | self._made_up_phrase(scene, generator)
        else:
            texts = self._names(scene, rendered, masks, generator)
        return asked(rendered.image[..., :3].copy(), rendered.foreground.astype(np.float32), masks, texts)

    def _scene(self, index: int, generator: np.random.Generator) -> tuple[Scene, list[Referring]]:
        """The scene of this number, or the next that shows what it should, and the phrases for it."""
        found: tuple[Scene, list[Referring]] | None = None
        for attempt in range(_TRIES if self._ask_held_out else 1):
            seed = self._source.seed, index * _TRIES + attempt if self._ask_held_out else index
            scene = sample_scene(seed, self._source.sampling)
            if self._ask_held_out and not any(thing.kind in self._held_out_names for thing in scene.objects):
                continue
            phrases = [
                one
                for one in referring_expressions(scene, generator)
                if mentions(one.text, self._held_out_names) == self._ask_held_out
            ]
            found = scene, phrases
            if phrases:
                break
        return found or (scene, [])

    def _names(
        self, scene: Scene, rendered: Rendered, masks: list[np.ndarray], generator: np.random.Generator
    ) -> dict[str, list[int]]:
        """Kinds, kinds with a colour, grounds and the text, each with the numbers of its masks, and some that are not
        there; masks of what is no thing are added to `masks`."""
        texts: dict[str, list[int]] = {}
        for thing in scene.objects:
            aspects = pick(generator, (("kind",), ("kind",), ("kind", "colour"), ("kind", "texture"), ("colour",)))
            known = describe(thing, *aspects)
            if thing.kind in self._held_out_names and known.kind and not self._ask_held_out:
                known = describe(thing, "colour")
            texts[known.words(generator)] = known.fitting(scene)
        regions = [(name, rendered.semantic == number) for number, name in enumerate(REGIONS) if name != "background"]
        regions.append(("background", ~rendered.foreground))
        regions.append((pick(generator, ("text", "word")), rendered.text_mask))
        for name, mask in regions:
            if mask.any() and generator.random() < 0.6:
                texts[name] = [len(masks)]
                masks.append(mask)
        shown = {thing.kind for thing in scene.objects} | set(self._held_out_names)
        absent = shuffled(generator, [kind for kind in KINDS if kind not in shown])
        texts |= {kind: [] for kind in absent[: whole(generator, 1, _MAX_ABSENT)]}
        texts |= self._absent_phrase(scene, generator)
        return {text: texts[text] for text in shuffled(generator, list(texts))}

    def _absent_phrase(self, scene: Scene, generator: np.random.Generator) -> dict[str, list[int]]:
        """A colour that no thing has together with a kind that is there, or with any kind."""
        kinds = [thing.kind for thing in scene.objects if thing.kind not in self._held_out_names]
        known = Description(kind=pick(generator, kinds) if kinds else None, colour=pick(generator, list(COLOURS)))
        return {} if known.fitting(scene) else {f"the {known.words(generator)}": []}

    def _made_up_phrase(self, scene: Scene, generator: np.random.Generator) -> dict[str, list[int]]:
        """A thing by its looks and a noun that nobody knows, as names that were never learnt will be."""
        for index in shuffled(generator, range(len(scene.objects))):
            looks = [known for known in unique_descriptions(scene, index, {"size"}) if not known.kind]
            if looks:
                noun = "".join(pick(generator, _SYLLABLES) for _ in range(whole(generator, 2, 3)))
                return {f"the {pick(generator, looks).words(generator).rsplit(' ', 1)[0]} {noun}": [index]}
        return {}
