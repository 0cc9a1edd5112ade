"""Pictures from a real server process with a random Canvas, asked for by boto3 and openai."""

from __future__ import annotations

import io
import json
import shutil
import time
import urllib.error
import urllib.request
from decimal import Decimal
from types import SimpleNamespace

import boto3
import numpy as np
import openai
import pytest
import sqlalchemy as sa
import torch
from botocore.config import Config
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, given, settings
from PIL import Image
from tests.serve.canvas_bodies import BODIES, changed, decode, encode, mask, mutated_bodies, picture
from tests.serve.conftest import run_server
from tests.tiny_canvas import write_tiny_canvas

from kilonova.models.components import save_folder
from kilonova.models.segmenter.config import MixedQuerySegmenterConfig
from kilonova.models.segmenter.model import MixedQuerySegmenter
from kilonova.models.text_encoder.config import TextTransformerConfig
from kilonova.models.text_encoder.model import TextTransformer
from kilonova.serve.call import KeyLimits
from kilonova.serve.database import Database, default_url
from kilonova.serve.keys.master import FILE_NAME, MasterKey
from kilonova.serve.keys.operations import OPERATIONS
from kilonova.serve.keys.store import KeyStore
from kilonova.serve.ledger.tables import calls
from kilonova.text.tokenizer import Tokenizer

CANVAS = "amazon.nova-canvas-v1:0"
HELLO = [{"role": "user", "content": [{"text": "hello"}]}]
SMALL = {"width": 320, "height": 320}


class Clients:
    """What a key's owner asks with."""

    def __init__(self, server, secrets):
        settings = {
            "endpoint_url": server.url,
            "region_name": "us-east-1",
            "aws_access_key_id": secrets.access_key_id,
            "aws_secret_access_key": secrets.secret_access_key,
            "config": Config(retries={"total_max_attempts": 1}, read_timeout=60),
        }
        self.runtime = boto3.client("bedrock-runtime", **settings)
        self.control = boto3.client("bedrock", **settings)
        self.openai = openai.OpenAI(base_url=f"{server.url}/v1", api_key=secrets.openai_key, max_retries=0, timeout=60)
        self.images = self.openai.images

    def invoke(self, body, model=CANVAS):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        return json.loads(self.runtime.invoke_model(modelId=model, body=body)["body"].read())


def write_tiny_segmenter(directory, tokenizer_directory):
    """A random segmenter that is sure enough of itself to find something."""
    generator = torch.Generator().manual_seed(0)
    segmenter = MixedQuerySegmenter(
        MixedQuerySegmenterConfig(
            sample_size=48,
            block_out_channels=(8, 8, 16),
            norm_num_groups=4,
            hidden_size=32,
            num_attention_heads=2,
            num_encoder_layers=1,
            num_fusion_layers=1,
            num_decoder_layers=1,
            num_queries=6,
            text_hidden_size=16,
        )
    )
    text_encoder = TextTransformer(
        TextTransformerConfig(
            vocab_size=512, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
        )
    )
    for network in (segmenter, text_encoder):
        network.init_weights(generator)
    torch.nn.init.constant_(segmenter.logit_bias, 2.0)
    tokenizer = Tokenizer.from_directory(tokenizer_directory)
    save_folder({"segmenter": segmenter, "text_encoder": text_encoder, "tokenizer": tokenizer}, directory, "X")


@pytest.fixture(scope="module")
def running(tmp_path_factory, tiny_micro_directory, tiny_tokenizer_directory):
    """The server, its database, and the clients of keys without limits, with a small budget, and for text alone."""
    directory = tmp_path_factory.mktemp("pictures")
    data = directory / "data"
    data.mkdir()
    database = Database(default_url(data))
    database.migrate()
    store, master = KeyStore(database), MasterKey.open(data / FILE_NAME)
    secrets = {
        "admin": store.create(master, "admin", operations=OPERATIONS)[1],
        "poor": store.create(master, "poor", limits=KeyLimits(budget_usd=Decimal("0.11")))[1],
        "writer": store.create(master, "writer", models=["tiny"])[1],
    }
    canvas = write_tiny_canvas(directory / "canvas")
    # One that is not named is loaded when it is first asked for.
    shutil.copytree(canvas, data / "models" / "plain")
    write_tiny_segmenter(canvas / "segmenter", tiny_tokenizer_directory)
    models = ("--model", f"tiny={tiny_micro_directory}", "--model", f"{CANVAS}={canvas}")
    with run_server(directory, *models) as server:
        deadline = time.monotonic() + 60
        while server.health()["status"] != "ok":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        clients = {name: Clients(server, each) for name, each in secrets.items()}
        yield SimpleNamespace(server=server, database=database, secrets=secrets, **clients)
    database.close()


@pytest.fixture
def admin(running):
    return running.admin


def refusal(ask, *arguments, **options):
    """The code and the message of the error that boto3 raises."""
    with pytest.raises(ClientError) as caught:
        ask(*arguments, **options)
    error = caught.value.response
    return error["ResponseMetadata"]["HTTPStatusCode"], error["Error"]["Code"], error["Error"]["Message"]


def pixels(image):
    return np.array(image.convert("RGB"))


def test_it_is_listed_with_its_modalities(admin):
    summaries = admin.control.list_foundation_models(byOutputModality="IMAGE")["modelSummaries"]
    summary = next(each for each in summaries if each["modelId"] == CANVAS)
    assert {"tiny", "micro"}.isdisjoint(each["modelId"] for each in summaries)
    assert summary == admin.control.get_foundation_model(modelIdentifier=CANVAS)["modelDetails"]
    assert (summary["modelId"], summary["inputModalities"]) == (CANVAS, ["TEXT", "IMAGE"])
    assert (summary["outputModalities"], summary["responseStreamingSupported"]) == (["IMAGE"], False)
    listed = {model.id: model for model in admin.openai.models.list()}
    assert listed[CANVAS].architecture == {"input_modalities": ["text", "image"], "output_modalities": ["image"]}
    assert listed["tiny"].architecture["output_modalities"] == ["text"]


def test_every_task_with_boto3(admin):
    for task in ("TEXT_IMAGE", "COLOR_GUIDED_GENERATION", "IMAGE_VARIATION"):
        (image,) = map(decode, admin.invoke(BODIES[task])["images"])
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (320, 320)), task
    given, drawn = pixels(picture()), pixels(mask())[..., 0] == 0
    for task, remade in (("INPAINTING", drawn), ("OUTPAINTING", ~drawn), ("VIRTUAL_TRY_ON", drawn)):
        answer = admin.invoke(BODIES[task])
        made = pixels(decode(answer["images"][0]))
        assert np.array_equal(made[~remade], given[~remade]), task
        assert not np.array_equal(made[remade], given[remade]), task
        assert ("maskImage" in answer) == (task == "VIRTUAL_TRY_ON")
    assert np.array_equal(pixels(decode(answer["maskImage"])), pixels(mask()))


def test_what_a_segmenter_finds(admin):
    (cut_out,) = map(decode, admin.invoke(BODIES["BACKGROUND_REMOVAL"])["images"])
    assert (cut_out.format, cut_out.mode, cut_out.size) == ("PNG", "RGBA", picture().size)
    assert np.array(cut_out)[..., 3].min() < 255
    asked = {"model": CANVAS, "prompt": "a ball", "size": "256x256", "output_format": "webp"}
    answer = admin.images.generate(**asked, background="transparent")
    assert answer.background == "transparent"
    assert decode(answer.data[0].b64_json).mode == "RGBA"
    words = changed("INPAINTING", "inPaintingParams", {"image": encode(picture()), "maskPrompt": "a ball"})
    assert decode(admin.invoke(words)["images"][0]).size == picture().size
    assert "inPaintingParams.maskPrompt" in refusal(admin.invoke, changed_prompt(words, " "))[2]


def changed_prompt(body, prompt):
    return {**body, "inPaintingParams": {**body["inPaintingParams"], "maskPrompt": prompt}}


def test_sizes_seeds_and_how_a_picture_was_made(admin):
    config = {"width": 480, "height": 320, "numberOfImages": 2, "seed": 3}
    body = {"taskType": "TEXT_IMAGE", "textToImageParams": {"text": "a red apple"}, "imageGenerationConfig": config}
    images = admin.invoke(body)["images"]
    assert len(set(images)) == 2
    assert images == admin.invoke(body)["images"]
    config |= {"numberOfImages": 1, "seed": 4}
    assert np.array_equal(pixels(decode(images[1])), pixels(decode(admin.invoke(body)["images"][0])))
    assert decode(images[0]).size == (480, 320)
    made = json.loads(decode(images[0]).text["kilonova"])
    assert (made["model"], made["seed"], made["num_inference_steps"]) == (CANVAS, 3, 2)
    assert "x" in made["native_size"]


def test_what_a_model_of_pictures_does_not_do(admin):
    chat = "This action doesn't support the model that you provided. Try again with a supported text or chat model."
    for ask in (admin.runtime.converse, admin.runtime.converse_stream):
        assert refusal(ask, modelId=CANVAS, messages=HELLO) == (400, "ValidationException", chat)
    body = json.dumps(BODIES["TEXT_IMAGE"])
    stream = admin.runtime.invoke_model_with_response_stream
    expected = (400, "ValidationException", "The model is unsupported for streaming.")
    assert refusal(stream, modelId=CANVAS, body=body) == expected
    counted = {"invokeModel": {"body": body.encode()}}
    assert "counting tokens" in refusal(admin.runtime.count_tokens, modelId=CANVAS, input=counted)[2]
    assert "required key [taskType] not found" in refusal(admin.invoke, {"messages": HELLO})[2]
    assert "extraneous key [taskType]" in refusal(admin.invoke, BODIES["TEXT_IMAGE"], "tiny")[2]
    for ask in (
        lambda: admin.openai.chat.completions.create(model=CANVAS, messages=[{"role": "user", "content": "hi"}]),
        lambda: admin.openai.completions.create(model=CANVAS, prompt="hi"),
        lambda: admin.openai.responses.create(model=CANVAS, input="hi"),
        lambda: admin.images.generate(model="tiny", prompt="hi"),
    ):
        with pytest.raises(openai.NotFoundError, match="not supported in this endpoint") as caught:
            ask()
        assert caught.value.param == "model"


def test_faults_have_their_wording_on_the_wire(admin):
    path = "textToImageParams.text"
    status, code, message = refusal(admin.invoke, changed("TEXT_IMAGE", path, "x" * 1469))
    assert (status, code) == (400, "ValidationException")
    assert message == (
        "Malformed input request: #/textToImageParams/text: expected maxLength: 1024, actual: 1469, please reformat "
        "your input and try again."
    )
    empty = encode(mask(inside="white"))
    found = refusal(admin.invoke, changed("INPAINTING", "inPaintingParams.maskImage", empty))
    assert found[:2] == (400, "ValidationException")
    assert "(inPaintingParams.maskImage)" in found[2]
    assert "segmenter" in refusal(admin.invoke, BODIES["BACKGROUND_REMOVAL"], "plain")[2]
    assert refusal(admin.invoke, b"{")[:2] == (400, "ValidationException")


def test_generations_with_openai(running, admin):
    answer = admin.images.generate(
        prompt="a red apple",
        n=6,
        size="256x256",
        quality="high",
        output_format="webp",
        output_compression=80,
        extra_body={"seed": 5, "negative_prompt": "blue", "style": "design_sketch"},
    )
    assert (answer.size, answer.quality, answer.output_format, answer.background) == (
        "256x256",
        "high",
        "webp",
        "opaque",
    )
    assert len({datum.b64_json for datum in answer.data}) == 6
    image = decode(answer.data[0].b64_json)
    assert (image.format, image.size) == ("WEBP", (256, 256))
    assert (answer.usage.total_tokens, answer.usage.images) == (0, 6)

    (datum,) = admin.images.generate(model=CANVAS, prompt="a ball", response_format="url", size="256x256").data
    assert datum.url.startswith(running.server.url)
    with urllib.request.urlopen(datum.url) as response:
        assert response.headers["content-type"] == "image/png"
        assert Image.open(io.BytesIO(response.read())).size == (256, 256)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(datum.url.replace(".png", ".jpeg"))

    events = list(admin.images.generate(prompt="a ball", n=2, size="256x256", stream=True, partial_images=2))
    assert [event.type for event in events] == ["image_generation.completed"] * 2
    assert decode(events[1].b64_json).size == (256, 256)
    assert events[0].quality == "medium"


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
def test_edits_and_variations_with_openai(admin):
    given, hidden = picture(size=(256, 128)), np.zeros((128, 256), bool)
    hidden[32:96, 64:160] = True
    transparent = Image.fromarray(np.dstack((pixels(given), np.where(hidden, 0, 255).astype(np.uint8))))

    def file_of(image, format="PNG"):
        file = io.BytesIO()
        image.save(file, format)
        return (f"a.{format.lower()}", file.getvalue())

    options = {"prompt": "a ball", "extra_body": {"seed": 1}}
    by_mask = admin.images.edit(image=file_of(given), mask=file_of(transparent), **options)
    assert (by_mask.size, by_mask.background) == ("256x128", "opaque")
    made = pixels(decode(by_mask.data[0].b64_json))
    assert np.array_equal(made[~hidden], pixels(given)[~hidden])
    assert not np.array_equal(made[hidden], pixels(given)[hidden])
    by_itself = admin.images.edit(image=[file_of(transparent)], size="512x256", **options)
    assert decode(by_itself.data[0].b64_json).size == (512, 256)
    like = admin.images.edit(image=[file_of(given), file_of(given, "JPEG")], n=2, stream=True, **options)
    assert [event.type for event in like] == ["image_edit.completed"] * 2
    varied = admin.images.create_variation(image=file_of(given), n=2, size="256x256", response_format="b64_json")
    assert [decode(datum.b64_json).size for datum in varied.data] == [(256, 256)] * 2

    for fault, param in (
        (lambda: admin.images.edit(image=file_of(given), mask=file_of(given), prompt="x"), "mask"),
        (lambda: admin.images.edit(image=file_of(given), mask=file_of(picture(size=(64, 64))), prompt="x"), "mask"),
        (lambda: admin.images.edit(image=("a.png", b"no picture"), prompt="x"), "image"),
        (lambda: admin.images.edit(image=file_of(given), prompt="x", extra_body={"steps": "4"}), "steps"),
        (lambda: admin.images.create_variation(image=file_of(given), n=11), "n"),
        (lambda: admin.images.generate(prompt="x" * 1025), "prompt"),
        (lambda: admin.images.generate(prompt="x", size="1000x1000"), "size"),
        (lambda: admin.images.generate(prompt="x", size="large"), "size"),
        (lambda: admin.images.generate(prompt="x", background="transparent", output_format="jpeg"), "background"),
        (lambda: admin.images.generate(prompt="x", style="cubism"), "style"),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            fault()
        assert caught.value.param == param, caught.value.message
    with pytest.raises(openai.BadRequestError, match="segmenter"):
        admin.images.generate(model="plain", prompt="x", size="256x256", background="transparent")


def test_keys_and_budgets(running):
    with pytest.raises(openai.PermissionDeniedError, match="may not use this model"):
        running.writer.images.generate(model=CANVAS, prompt="x")
    with pytest.raises(openai.NotFoundError, match="no model of pictures"):
        running.writer.images.generate(prompt="x")
    assert refusal(running.writer.invoke, BODIES["TEXT_IMAGE"])[:2] == (403, "AccessDeniedException")
    config = {"width": 1040, "height": 1040, "quality": "premium", "numberOfImages": 1}
    running.poor.invoke(changed("TEXT_IMAGE", "imageGenerationConfig", config))
    status, code, message = refusal(running.poor.invoke, changed("TEXT_IMAGE", "imageGenerationConfig", SMALL))
    assert (status, code) == (429, "ThrottlingException")
    assert "0.080000 are spent or reserved, and this request may cost 0.040000" in message

    deadline = time.monotonic() + 10
    while True:
        with running.database.engine.connect() as connection:
            by_poor = sa.select(calls).where(calls.c.key_name == "poor").order_by(calls.c.started_at)
            rows = connection.execute(by_poor).all()
        if [row.status for row in rows] == ["finished", "refused"]:
            break
        assert time.monotonic() < deadline, rows
        time.sleep(0.05)
    paid = rows[0]
    assert (paid.images, paid.image_size, paid.image_quality) == (1, "1040x1040", "premium")
    assert (paid.price, paid.price_entry) == (80_000_000_000, f"{CANVAS}@nova-us-2026-07-09")
    assert (paid.input_tokens, paid.output_tokens, paid.stop_reason) == (0, 0, "end_turn")
    assert (rows[1].images, rows[1].price) == (0, 0)

    authorised = {"authorization": f"Bearer {running.secrets['admin'].openai_key}"}
    usage = urllib.request.Request(f"{running.server.url}/kilonova/usage?key=poor", headers=authorised)
    with urllib.request.urlopen(usage) as response:
        total = json.load(response)["total"]
    assert (total["images"], float(total["price_usd"])) == (1, 0.08)
    metrics = urllib.request.Request(f"{running.server.url}/metrics", headers=authorised)
    with urllib.request.urlopen(metrics) as response:
        text = response.read().decode()
    assert f'kilonova_images_total{{model="{CANVAS}",quality="premium",size="2048"}} 1.0' in text
    assert f'kilonova_engine_up{{model="{CANVAS}"}} 1.0' in text


@settings(max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(mutated_bodies())
def test_mutated_bodies_never_fail_the_server(admin, body):
    try:
        answer = admin.invoke(body)
    except ClientError as error:
        answer = error.response
    if "Error" in answer:
        assert answer["Error"]["Code"] == "ValidationException", answer
        assert answer["Error"]["Message"]
    else:
        assert answer["images"]
