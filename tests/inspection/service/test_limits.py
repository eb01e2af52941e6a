"""A service that is full, or has a bug: told in JSON, and what was set aside is given back."""

import asyncio
import json
import logging

import pytest
from checkpoints import pictures, png, write_checkpoint
from service import multipart

from solder_vae.inspection.service.app import BODIES, Limits, Service
from solder_vae.inspection.service.origin import load
from solder_vae.serve import run
from solder_vae.utils.errors import UserError

KIND, BODY = multipart([("picture", "a.png", png(pictures(1)[0]))])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return str(write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "best.ckpt")[0])


@pytest.fixture
def service(checkpoint):
    made = []

    def make(**limits):
        made.append(Service(*load(checkpoint), Limits(**limits)))
        return made[-1]

    yield make
    for each in made:
        each.close()


async def ask(app, path="/pictures", body=BODY, method="POST", length=None):
    """Status, headers and content of the answer, without a network."""
    sent, waiting = [], [{"type": "http.request", "body": body, "more_body": False}]
    headers = {"content-type": KIND, "content-length": str(len(body) if length is None else length)}

    async def receive():
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": method, "path": path, "root_path": "", "scheme": "http", "query_string": b"",
        "http_version": "1.1", "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    await app(scope, receive, send)
    content = b"".join(message.get("body", b"") for message in sent)
    return sent[0]["status"], dict(sent[0]["headers"]), json.loads(content)


def test_more_requests_than_may_wait_are_told_to_come_again(service):
    full = service(waiting=3)

    async def all_at_once():
        return await asyncio.gather(*(ask(full.app) for _ in range(8)))

    answers = asyncio.run(all_at_once())
    assert sorted(status for status, _, _ in answers) == [200] * 3 + [503] * 5
    for status, headers, answer in answers:
        if status == 503:
            assert "3 requests are waiting already" in answer["error"]
            assert headers[b"retry-after"] == b"1"
    assert full.waiting == full.uploads.used == 0


def test_more_than_fits_into_memory_is_told_to_come_again(service):
    full = service(body=len(BODY))

    async def all_at_once():
        return await asyncio.gather(*(ask(full.app) for _ in range(BODIES + 2)))

    answers = asyncio.run(all_at_once())
    assert [status for status, _, _ in answers].count(503) == 2
    assert {answer.get("error", "").partition(":")[0] for _, _, answer in answers} == {
        "", "The service has no memory left for another request"
    }  # fmt: skip
    assert full.uploads.used == 0


def test_a_bug_is_answered_and_logged(service, monkeypatch):
    faulty = service()
    monkeypatch.setattr(faulty.inspector, "decide", lambda joints: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # which uvicorn logs
        asyncio.run(ask(faulty.app))
    assert faulty.waiting == faulty.uploads.used == 0


def test_a_model_whose_scores_are_no_numbers_is_not_the_clients_fault(service):
    broken = service()
    for parameter in broken.inspector.model.parameters():
        parameter.data.fill_(float("nan"))
    status, _, answer = asyncio.run(ask(broken.app))
    assert status == 500
    assert "scores are not numbers" in answer["error"]


def test_a_service_whose_network_stopped_is_not_healthy(service, caplog):
    stopped = service()
    assert asyncio.run(ask(stopped.app, "/health", b"", "GET"))[0] == 200
    stopped.batcher.close()
    status, _, answer = asyncio.run(ask(stopped.app, "/health", b"", "GET"))
    assert (status, answer) == (503, {"error": "The network has stopped."})
    assert not [record for record in caplog.records if record.levelno > logging.WARNING]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["waiting=0"], "waiting=0 does not fit"),
        (["device=tpu"], "device=tpu is not there"),
        (["port=70000"], "port=70000 does not fit"),
        (["host=999.1.1.1"], "host=999.1.1.1 port=8000 cannot be listened on"),
    ],
)
def test_options_that_do_not_fit(checkpoint, arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        run([f"checkpoint={checkpoint}", *arguments])


def test_without_the_extra_one_sentence_says_how_to_get_it(checkpoint, monkeypatch):
    monkeypatch.setattr("solder_vae.serve.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install -c constraints\.txt '\.\[serve\]' adds them"):
        run([f"checkpoint={checkpoint}"])


def test_a_checkpoint_that_changes_while_it_is_read_is_refused(checkpoint, monkeypatch):
    digests = iter(["one", "another"])
    monkeypatch.setattr("solder_vae.inspection.service.origin.digest", lambda path: next(digests))
    with pytest.raises(UserError, match="was changed while it was read"):
        load(checkpoint)
