"""The chain from scenes to a report, with a model that is right, and with ones that are wrong in known ways."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from tests.evals.canvas.fakes import Eyes, SceneCanvas, recoloured

from kilonova.core.errors import InvalidRequest
from kilonova.data.world.scene import Scene
from kilonova.evals.canvas import adherence, faithfulness, geneval
from kilonova.evals.canvas.icons import STYLE_WORDS
from kilonova.evals.canvas.report import Report, Score
from kilonova.evals.canvas.run import PARTS, choose_parts, measure
from kilonova.evals.canvas.study import Study
from kilonova.recipes import find_recipe
from kilonova.studio.tasks import TextToImage

LIMIT = 18


@pytest.fixture(scope="module")
def eyes() -> Eyes:
    """Eyes that know all scenes as they should be."""
    eyes = Eyes()
    for scene in scenes().values():
        eyes.remember(scene)
    return eyes


def scenes() -> dict[str, Scene]:
    cases = {case.caption.text: case.scene for case in faithfulness.world_cases(LIMIT, 0)}
    prompts = geneval.geneval_prompts(LIMIT, 0)
    return cases | {prompt.text: geneval.scene_for(prompt, index) for index, prompt in enumerate(prompts)}


def report() -> Report:
    return Report("fake", "0", LIMIT, 0, 128, 6.5, None)


def study(canvas: SceneCanvas, eyes: Eyes) -> Study:
    return Study(canvas=canvas, limit=LIMIT, segmenter=eyes, attributes=eyes, quiet=True)


def scored(found: Report) -> dict[str, Score]:
    return {score.part: score for score in found.scores}


def test_a_perfect_model_is_measured_as_perfect(eyes: Eyes, tmp_path: Path) -> None:
    canvas = SceneCanvas(scenes(), eyes)
    what = study(canvas, eyes)
    found = measure(what, report(), ["tifa-world", "geneval"])
    for score in scored(found).values():
        assert score.value == score.ceiling == score.high == 1
        assert score.count == LIMIT
    assert scored(found)["tifa-world"].baselines["pictures of other captions"] < 0.5
    assert [request.seed for request in canvas.requests[:LIMIT]] == list(range(LIMIT))
    what.gallery.write(tmp_path)
    with Image.open(tmp_path / "tifa-world" / "0003.png") as picture:
        scene = faithfulness.world_cases(LIMIT, 0)[3].scene
        assert np.array_equal(np.asarray(picture), eyes.remember(scene))
    with Image.open(tmp_path / "geneval.png") as sheet:
        assert sheet.width > 8 * 128
    assert json.loads(found.to_json())["scores"][0]["details"][0]["answers"]
    assert found.table().row_count == 2


def test_wrong_colours_cost_what_asks_for_colours(eyes: Eyes) -> None:
    found = scored(measure(study(SceneCanvas(scenes(), eyes, recoloured), eyes), report(), ["tifa-world", "geneval"]))
    tifa = found["tifa-world"]
    assert 0.5 < tifa.value < 0.9 < tifa.ceiling
    assert tifa.low < tifa.value < tifa.high < 1
    assert tifa.parts["by kind"]["counting"] == tifa.parts["by kind"]["background"] == 1
    assert tifa.parts["by kind"]["color"] < 0.6
    wrong = found["geneval"].parts["by task"]
    assert wrong["colors"] == wrong["color_attr"] == 0
    assert wrong["counting"] == wrong["position"] == 1


def test_a_model_that_draws_nothing_has_little_right(eyes: Eyes) -> None:
    blank = SceneCanvas(scenes(), eyes, lambda scene: replace(scene, objects=(), text=None))
    found = scored(measure(study(blank, eyes), report(), ["tifa-world", "geneval"]))
    assert found["geneval"].value == 0
    assert found["tifa-world"].value < 0.55
    assert found["tifa-world"].parts["by kind"]["counting"] == 0


def test_regions_and_edges_are_those_of_the_control(eyes: Eyes) -> None:
    class Obedient(SceneCanvas):
        """Draws the very scene whose edges or regions it is given, whatever its words."""

        def generate(self, request, on_step=None):
            if isinstance(request.task, TextToImage) and request.task.control is None:
                picture = eyes.remember(Scene(()))
                return replace(super().generate(replace(request, task=shown_task)), images=(picture,))
            return super().generate(request)

    base = Study(canvas=SceneCanvas({}, eyes), limit=8, segmenter=eyes, attributes=eyes, quiet=True)
    shown = {text: scene for text, scene, _ in adherence.control_scenes(8, 128, 0)}
    shown_task = TextToImage(text=next(iter(shown)))
    what = replace(base, canvas=Obedient(shown, eyes))
    found = measure(what, report(), ["edges", "regions"]).scores
    for score in found:
        assert score.value == 1
        assert score.baselines["no control"] < 0.3
    assert [score.metric[-4:] for score in found[:4]] == ["0.25", " 0.5", "0.75", " 1.0"]


def test_edits_and_colours_of_a_model_that_obeys(eyes: Eyes) -> None:
    found = measure(study(SceneCanvas({}, eyes), eyes), report(), ["edits", "colours"]).scores
    values = {score.metric: score for score in found}
    assert values["INPAINTING: nothing changed outside the mask"].value == 1
    assert values["OUTPAINTING, PRECISE: nothing kept changed"].value == 1
    assert values["mean CIEDE2000 of the change inside the mask"].value > 10
    assert values["the kind and colour asked for is seen there"].value == 0
    (colours,) = (score for score in found if score.part == "colours")
    assert colours.value < 1
    assert colours.baselines["another palette"] > 10


def test_edits_that_leak_are_caught(eyes: Eyes) -> None:
    class Leaky(SceneCanvas):
        def generate(self, request, on_step=None):
            result = super().generate(request)
            picture = result.images[0].copy()
            picture[0, 0] ^= 1
            return replace(result, images=(picture,))

    found = measure(study(Leaky({}, eyes), eyes), report(), ["edits"]).scores
    assert found[0].value < 0.2


def test_what_cannot_be_measured_is_left_out_and_said(eyes: Eyes) -> None:
    lacking = Study(canvas=SceneCanvas({}, eyes), limit=4, quiet=True)
    found = measure(lacking, report(), ["tifa-world", "style", "reconstruction", "colours"])
    assert set(found.left_out) == {"tifa-world", "style", "reconstruction"}
    assert "segmenter" in found.left_out["tifa-world"]
    assert "--data" in found.left_out["style"]
    assert [score.part for score in found.scores] == ["colours"]


def test_parts_are_chosen_by_name() -> None:
    assert choose_parts(["edges", "style"]) == ["style", "edges"]
    assert choose_parts([]) == list(PARTS)
    with pytest.raises(InvalidRequest, match="'edges'"):
        choose_parts(["edge"])


def test_styles_are_called_as_in_training() -> None:
    recipe = yaml.safe_load(Path(find_recipe("canvas/flow")).read_text())
    assert recipe["pictures"]["sources"][0]["words"]["style"] == STYLE_WORDS
