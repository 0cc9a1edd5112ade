"""Which combinations of a kind and a look never occur in training scenes, so that composing can be tested.

Kind number k (in the order of `KINDS`) is withheld in the one colour number c with 5k + c = 0 modulo 12, and in the one
texture other than plain number t with 2k + t = 0 modulo 5. So every kind misses one colour in twelve and one texture
in five, every colour and texture misses about equally many kinds, and each part of a withheld pair is common by itself.
Of things with a random colour, half of them with a random texture, 17.5 % would be withheld.
"""

from __future__ import annotations

from kilonova.core.errors import DataError, nearest
from kilonova.data.world.colours import COLOURS
from kilonova.data.world.kinds import KINDS, TEXTURES
from kilonova.data.world.scene import Scene

_KIND_NUMBER = {name: number for number, name in enumerate(KINDS)}
_COLOUR_NUMBER = {name: number for number, name in enumerate(COLOURS)}
_TEXTURE_NUMBER = {name: number for number, name in enumerate(TEXTURES)}


def is_held_out(kind: str, attribute: str) -> bool:
    """Whether this kind in this colour or texture is kept from training. Raises `DataError` for unknown names."""
    if kind not in _KIND_NUMBER:
        raise DataError(f"kind is {kind!r}; {nearest(kind, KINDS)}")
    number = _KIND_NUMBER[kind]
    if attribute in _COLOUR_NUMBER:
        return (5 * number + _COLOUR_NUMBER[attribute]) % len(COLOURS) == 0
    if attribute in _TEXTURE_NUMBER:
        return attribute != "plain" and (2 * number + _TEXTURE_NUMBER[attribute]) % (len(TEXTURES) - 1) == 0
    raise DataError(f"attribute is {attribute!r}; {nearest(attribute, (*COLOURS, *TEXTURES))}")


def has_held_out(scene: Scene) -> bool:
    """Whether any thing of the scene is a withheld combination."""
    return any(is_held_out(thing.kind, look) for thing in scene.objects for look in (thing.colour, thing.texture))


HELD_OUT: tuple[tuple[str, str], ...] = tuple(
    (kind, look) for kind in KINDS for look in (*COLOURS, *TEXTURES) if is_held_out(kind, look)
)
