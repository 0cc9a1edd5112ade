"""What paper dolls wear: garments of every class, as outlines on any figure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kilonova.data.world.dolls_figure import Figure, cuff, limb, rounded, whole
from kilonova.data.world.kinds import KINDS
from kilonova.data.world.paths import curve, ellipse, mirrored, moved, rectangle

Slot = Literal["upper", "outer", "lower", "full", "feet"]
Piece = tuple[str, list[np.ndarray]]
"""What fills outlines, "main" or a companion, and the outlines, which are drawn as one."""

MOTIFS: tuple[str, ...] = ("star", "heart", "lightning bolt", "circle", "diamond", "crescent")
_SLEEVE = (0.125, 0.1, 0.095)
_WIDE_SLEEVE = (0.14, 0.115, 0.11)
_LEG = (0.17, 0.13, 0.115)
_LOOSE_LEG = (0.185, 0.16, 0.16)


@dataclass(frozen=True, eq=False)
class GarmentKind:
    """One kind of garment.

    `garment_class` is that of `studio.tasks.GarmentClass`, `slot` where it is worn. `pieces(figure)` gives what is
    drawn before the arms, and what is drawn on them. `plural` names take no article, as "shorts".
    """

    name: str
    garment_class: str
    slot: Slot
    pieces: Callable[[Figure], tuple[list[Piece], list[Piece]]]
    plural: bool = False


@dataclass(frozen=True)
class Garment:
    """One garment as it looks: its kind's name, its colour and texture as things have them, and the name of a shape
    drawn on its chest, or nothing."""

    kind: str
    colour: str
    texture: str = "plain"
    motif: str = ""


def motif_outline(name: str) -> np.ndarray:
    """The shape of a motif, on the chest."""
    return moved(KINDS[name].paths[0].points * 0.075, 0, -0.19)


def _scaled(body: Figure, half: np.ndarray) -> np.ndarray:
    return whole(half) * np.array([body.build, 1])


def _bodice(body: Figure, hem: float, neckline: float, shoulder: float = 0.2, flare: float = 0.0) -> list[np.ndarray]:
    """The trunk of a garment down to `hem`; `neckline` is how deep it is cut."""
    half = curve(
        f"M0 {-0.43 + neckline:.3f} C.05 {-0.43 + neckline:.3f} .075 -.42 .08 -.44 C.13 -.43 {shoulder} -.42 "
        f"{shoulder} -.36 L.168 -.2 C.148 -.1 .142 -.04 .146 0 L{0.178 + flare:.3f} {hem} L0 {hem + 0.015:.3f} Z"
    )
    return [_scaled(body, half)]


def _sleeves(body: Figure, share: float, widths: tuple[float, float, float]) -> list[Piece]:
    pieces: list[Piece] = []
    for arm in body.arms:
        pieces.append(("main", [moved(ellipse(0, 0, widths[0] / 2), *arm[0]), *limb(arm, widths, share)]))
        pieces.append(("dark", cuff(arm, widths, share, 0.05)))
    return pieces


def _collar(depth: float) -> Piece:
    return "dark", [curve(f"M-.08 -.44 C-.075 -.42 -.05 {-0.43 + depth:.3f} 0 {-0.43 + depth:.3f} C.05 "
                          f"{-0.43 + depth:.3f} .075 -.42 .08 -.44 L.105 -.435 C.095 -.4 .06 {-0.4 + depth:.3f} 0 "
                          f"{-0.4 + depth:.3f} C-.06 {-0.4 + depth:.3f} -.095 -.4 -.105 -.435 Z")]  # fmt: skip


def _shirt(sleeves: float, shoulder: float = 0.2) -> Callable[[Figure], tuple[list[Piece], list[Piece]]]:
    def pieces(body: Figure) -> tuple[list[Piece], list[Piece]]:
        depth = 0.05 if sleeves else 0.1
        trunk: list[Piece] = [("main", _bodice(body, 0.17, depth, shoulder)), _collar(depth)]
        return trunk, _sleeves(body, sleeves, _SLEEVE) if sleeves else []

    return pieces


def _blouse(body: Figure) -> tuple[list[Piece], list[Piece]]:
    buttons = [ellipse(0, y, 0.012) for y in (-0.3, -0.2, -0.1, 0.0, 0.1)]
    collar = curve("M0 -.36 L.035 -.29 L.115 -.36 L.085 -.445 L.06 -.43 Z")
    trunk: list[Piece] = [("main", _bodice(body, 0.17, 0.06)), ("light", [rectangle(-0.02, -0.36, 0.02, 0.18)]),
                          ("dark", buttons), ("light", [collar, mirrored(collar)])]  # fmt: skip
    return trunk, _sleeves(body, 0.97, _SLEEVE)


def _jacket(*, is_open: bool) -> Callable[[Figure], tuple[list[Piece], list[Piece]]]:
    def pieces(body: Figure) -> tuple[list[Piece], list[Piece]]:
        scale = np.array([body.build, 1])
        if is_open:
            front = curve("M.06 -.45 C.13 -.44 .21 -.43 .212 -.36 L.185 -.2 C.17 -.1 .168 -.04 .17 0 L.215 .22 "
                          "L.1 .235 L.07 -.1 Z") * scale  # fmt: skip
            lapel = curve("M.06 -.455 L.12 -.44 L.145 -.28 L.07 -.13 Z") * scale
            trunk: list[Piece] = [("main", [front]), ("main", [mirrored(front)]), ("dark", [lapel]),
                                  ("dark", [mirrored(lapel)])]  # fmt: skip
        else:
            collar = curve("M0 -.39 L.03 -.33 L.13 -.38 L.1 -.46 L.06 -.45 Z")
            zipper = rectangle(-0.012, -0.39, 0.012, 0.24)
            trunk = [("main", _bodice(body, 0.23, 0.04, 0.212, 0.035)), ("metal", [zipper]),
                     ("dark", [collar, mirrored(collar)])]  # fmt: skip
        pocket = rectangle(0.09, 0.06, 0.165, 0.085) * scale
        trunk.append(("dark", [pocket]))
        trunk.append(("dark", [mirrored(pocket)]))
        return trunk, _sleeves(body, 0.98, _WIDE_SLEEVE)

    return pieces


def _waist(body: Figure) -> Piece:
    return "dark", [_scaled(body, curve("M0 -.02 L.14 -.02 L.147 .03 L0 .035 Z"))]


def _hips(body: Figure) -> list[np.ndarray]:
    return [_scaled(body, curve("M0 -.02 L.142 -.02 C.16 .06 .17 .12 .172 .2 L.06 .27 L0 .24 Z"))]


def _pants(share: float, widths: tuple[float, float, float]) -> Callable[[Figure], tuple[list[Piece], list[Piece]]]:
    def pieces(body: Figure) -> tuple[list[Piece], list[Piece]]:
        legs = [part for leg in body.legs for part in limb(leg, widths, share)]
        hems = [part for leg in body.legs for part in cuff(leg, widths, share, 0.035)]
        seam = rectangle(-0.006, 0.04, 0.006, 0.2)
        return [("main", [*_hips(body), *legs]), ("dark", hems), ("dark", [seam]), _waist(body)], []

    return pieces


def _skirt_outline(body: Figure, hem: float, width: float, top: float = -0.02) -> list[np.ndarray]:
    half = curve(
        f"M0 {top} L.142 {top} C.165 .06 {width - 0.03:.3f} {hem - 0.12:.3f} {width} {hem} "
        f"C{width * 0.6:.3f} {hem + 0.03:.3f} {width * 0.3:.3f} {hem + 0.035:.3f} 0 {hem + 0.035:.3f} Z"
    )
    return [_scaled(body, half)]


def _folds(body: Figure, hem: float, width: float) -> Piece:
    fold = curve(f"M.05 .12 L{width * 0.48:.3f} {hem + 0.02:.3f} L{width * 0.4:.3f} {hem + 0.028:.3f} Z")
    return "dark", [fold * np.array([body.build, 1]), mirrored(fold) * np.array([body.build, 1])]


def _skirt(hem: float, width: float) -> Callable[[Figure], tuple[list[Piece], list[Piece]]]:
    def pieces(body: Figure) -> tuple[list[Piece], list[Piece]]:
        return [("main", _skirt_outline(body, hem, width)), _folds(body, hem, width), _waist(body)], []

    return pieces


def _dress(hem: float, width: float, sleeves: float) -> Callable[[Figure], tuple[list[Piece], list[Piece]]]:
    def pieces(body: Figure) -> tuple[list[Piece], list[Piece]]:
        depth = 0.06 if sleeves else 0.1
        outline = [*_bodice(body, 0.02, depth, 0.2 if sleeves else 0.13), *_skirt_outline(body, hem, width, -0.03)]
        trunk: list[Piece] = [("main", outline), _folds(body, hem, width), _waist(body), _collar(depth)]
        return trunk, _sleeves(body, sleeves, _SLEEVE) if sleeves else []

    return pieces


def _overall(body: Figure) -> tuple[list[Piece], list[Piece]]:
    """A jumpsuit in one piece with a belt."""
    legs = [part for leg in body.legs for part in limb(leg, _LOOSE_LEG, 0.95)]
    outline = [*_bodice(body, 0.1, 0.07), *_hips(body), *legs]
    buttons = [ellipse(0, y, 0.012) for y in (-0.28, -0.18, -0.08)]
    return [("main", outline), _waist(body), _collar(0.07), ("light", buttons)], _sleeves(body, 0.4, _SLEEVE)


_SHOE = curve("M-.075 -.07 L.075 -.07 C.12 0 .11 .03 .1 .038 L-.1 .038 C-.11 .03 -.12 0 -.075 -.07 Z")


def _shoes(body: Figure) -> tuple[list[Piece], list[Piece]]:
    pieces: list[Piece] = []
    for leg, sign in zip(body.legs, (-1, 1), strict=True):
        x, y = leg[2] + (sign * 0.025, 0.035)
        laces = [rectangle(-0.04, -0.035, 0.04, -0.02), rectangle(-0.045, -0.008, 0.045, 0.007)]
        pieces += [
            ("white", [ellipse(x, y + 0.035, 0.105, 0.033)]),
            ("main", [moved(_SHOE, x, y)]),
            ("light", [moved(lace, x, y) for lace in laces]),
        ]
    return pieces, []


def _boots(body: Figure) -> tuple[list[Piece], list[Piece]]:
    pieces: list[Piece] = []
    for leg, sign in zip(body.legs, (-1, 1), strict=True):
        x, y = leg[2] + (sign * 0.025, 0.035)
        foot = ellipse(x, y + 0.005, 0.105, 0.052)
        pieces += [
            ("dark", [ellipse(x, y + 0.035, 0.112, 0.033)]),
            ("main", [foot, *limb(leg, (0.15, 0.14, 0.135), 1.0, 0.66)]),
            ("dark", limb(leg, (0.16, 0.155, 0.15), 0.71, 0.65)),
        ]
    return pieces, []


GARMENTS: dict[str, GarmentKind] = {
    kind.name: kind
    for kind in (
        GarmentKind("long-sleeved shirt", "LONG_SLEEVE_SHIRT", "upper", _shirt(0.97)),
        GarmentKind("blouse", "LONG_SLEEVE_SHIRT", "upper", _blouse),
        GarmentKind("T-shirt", "SHORT_SLEEVE_SHIRT", "upper", _shirt(0.36)),
        GarmentKind("tank top", "NO_SLEEVE_SHIRT", "upper", _shirt(0, 0.14)),
        GarmentKind("closed jacket", "OTHER_UPPER_BODY", "outer", _jacket(is_open=False)),
        GarmentKind("open jacket", "OTHER_UPPER_BODY", "outer", _jacket(is_open=True)),
        GarmentKind("long pants", "LONG_PANTS", "lower", _pants(0.97, _LEG), plural=True),
        GarmentKind("wide pants", "LONG_PANTS", "lower", _pants(0.97, (0.18, 0.19, 0.2)), plural=True),
        GarmentKind("shorts", "SHORT_PANTS", "lower", _pants(0.4, _LOOSE_LEG), plural=True),
        GarmentKind("skirt", "OTHER_LOWER_BODY", "lower", _skirt(0.4, 0.27)),
        GarmentKind("long dress", "LONG_DRESS", "full", _dress(0.78, 0.31, 0.36)),
        GarmentKind("evening dress", "LONG_DRESS", "full", _dress(0.8, 0.29, 0.0)),
        GarmentKind("short dress", "SHORT_DRESS", "full", _dress(0.38, 0.28, 0.36)),
        GarmentKind("summer dress", "SHORT_DRESS", "full", _dress(0.4, 0.29, 0.0)),
        GarmentKind("jumpsuit", "FULL_BODY_OUTFIT", "full", _overall),
        GarmentKind("shoes", "SHOES", "feet", _shoes, plural=True),
        GarmentKind("boots", "BOOTS", "feet", _boots, plural=True),
    )
}


def bare_arm(arm: np.ndarray) -> list[np.ndarray]:
    return rounded(arm, (0.085, 0.072, 0.062))


def bare_leg(leg: np.ndarray) -> list[np.ndarray]:
    return rounded(leg, (0.125, 0.1, 0.082))
