"""The client against a real service, and against the answers a service under stress gives."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from pydantic import SecretStr
from service_running import Service, running

from service.client import Client, Retries, ServiceError
from service.client.__main__ import main
from service.settings import Settings

pytest_plugins = ["service_fixtures"]

ADMIN_KEY = "of-the-admin"
NOWHERE = "http://127.0.0.1:9"  # discard: nothing listens there


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def read(self) -> float:
        """Seconds since some day."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.slept.append(seconds)
        self.now += seconds


def no_jitter(low: float, _high: float) -> float:
    return low


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    """A client of the running service."""
    with Client(service.url, environ={}) as client:
        yield client


def scripted(clock: Clock, *answers: httpx2.Response | Exception, **retries: Any) -> Client:
    """A client that is given these answers one after another."""
    left = iter(answers)

    def answer(_request: httpx2.Request) -> httpx2.Response:
        given = next(left)
        if isinstance(given, Exception):
            raise given
        return given

    rules = Retries(clock=clock.read, sleep=clock.sleep, uniform=no_jitter, **retries)
    return Client(environ={}, retries=rules, transport=httpx2.MockTransport(answer))


def problem(status: int, code: str, **headers: str) -> httpx2.Response:
    document = {"status": status, "code": code, "detail": "so it is", "request_id": "r-1"}
    return httpx2.Response(status, json=document, headers=headers)


def found() -> httpx2.Response:
    answer = {"request_id": "r", "generation": "000001", "model": "m", "results": []}
    return httpx2.Response(200, json=answer)


def test_search_finds_the_photo_itself(client: Client, photos: Path) -> None:
    """Bytes and paths are the same photo; hits come typed, nearest first."""
    by_path = client.search(photos / "05.jpg", limit=3)
    by_bytes = client.search((photos / "05.jpg").read_bytes(), limit=3)
    assert by_path.results == by_bytes.results
    assert [hit.rank for hit in by_path.results] == [1, 2, 3]
    assert by_path.results[0].uri == "05.jpg"
    assert by_path.results[0].score == pytest.approx(1, abs=1e-4)
    assert by_path.query is not None
    assert (by_path.query.width, by_path.query.height) == (96, 72)
    assert by_path.has_more


def test_parameters_reach_the_service(client: Client, photos: Path) -> None:
    """Numbers, switches, lists and a filter arrive as the service reads them."""
    conditions = {
        "must": [{"field": "width", "gte": 96}],
        "must_not": [{"field": "bytes", "lt": 1}],
    }
    whole = client.search(photos / "05.jpg", limit=12)
    part = client.search(
        photos / "05.jpg",
        limit=2,
        offset=1,
        min_score=-1.0,
        exact=True,
        dedup=False,
        timeout_ms=20_000,
        filter=conditions,
        include=["embedding", "query_embedding"],
    )
    assert [hit.id for hit in part.results] == [hit.id for hit in whole.results[1:3]]
    assert part.offset == 1
    assert part.query_embedding is not None
    assert all(hit.embedding is not None and not hit.metadata for hit in part.results)
    nothing = client.search(photos / "05.jpg", filter={"must": [{"field": "width", "lt": 1}]})
    assert nothing.results == ()


def test_embedding_finds_what_the_photo_finds(client: Client, photos: Path) -> None:
    """A unit vector comes back, and searches in place of the photo."""
    embedding = client.embed(photos / "05.jpg")
    assert embedding.dtype == np.float32
    assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-3)
    by_photo, by_embedding = client.search(photos / "05.jpg"), client.search_embedding(embedding)
    assert [hit.id for hit in by_embedding.results] == [hit.id for hit in by_photo.results]


def test_similar_leaves_the_photo_itself_out(client: Client, photos: Path) -> None:
    """The neighbours of a stored photo are those of its bytes without the first."""
    itself, *others = client.search(photos / "05.jpg", limit=4).results
    similar = client.similar(itself.id, limit=3)
    assert [hit.id for hit in similar.results] == [hit.id for hit in others]
    for unknown in ("4711", "../health", "a b"):
        with pytest.raises(ServiceError) as caught:
            client.similar(unknown)
        assert caught.value.status in {404, 422}


@pytest.fixture
def changing(index_root: Path, tmp_path: Path) -> Iterator[Service]:
    """A service that takes adds and deletes, on an index of its own."""
    root = Path(shutil.copytree(index_root, tmp_path / "index"))
    settings = Settings(index=root, port=0, adds=True, admin_key=[SecretStr(ADMIN_KEY)])
    with running(settings) as service:
        yield service


def test_photos_come_and_go(changing: Service, jpeg: Callable[[int], bytes]) -> None:
    """An added photo is found at once, added again it is the same, and deleted it is gone."""
    photo = jpeg(77)
    with Client(changing.url, api_key=ADMIN_KEY) as admin:
        added = admin.add(photo, {"label": "new"})
        assert added.is_new
        assert admin.add(photo) == (added.id, False)
        (hit,) = admin.search(photo, limit=1).results
        assert (hit.id, hit.metadata["label"]) == (added.id, "new")
        admin.delete(added.id)
        assert admin.search(photo, limit=1).results[0].id != added.id
        with pytest.raises(ServiceError) as caught:
            admin.delete(added.id)
        assert caught.value.code == "image_not_found"
    with Client(changing.url, environ={}) as nobody, pytest.raises(ServiceError) as caught:
        nobody.add(photo)
    assert caught.value.status == 401


def test_command_adds_and_deletes(
    changing: Service,
    tmp_path: Path,
    jpeg: Callable[[int], bytes],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`add` prints the id that `delete` takes; the key comes from the environment."""
    monkeypatch.setenv("MULTIGRAIN_API_KEY", ADMIN_KEY)
    (tmp_path / "new.jpg").write_bytes(jpeg(78))
    words = [str(tmp_path / "new.jpg"), "--url", changing.url]
    assert main(["add", *words, "--metadata", '{"label": "new"}']) == 0
    image_id = capsys.readouterr().out.strip()
    assert main(["add", *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"id": image_id, "is_new": False}
    assert main(["delete", image_id, "--url", changing.url]) == 0
    assert main(["delete", image_id, "--url", changing.url]) == 1
    assert "image_not_found" in capsys.readouterr().err


def test_search_many_keeps_the_order_and_fails_one_by_one(client: Client, photos: Path) -> None:
    """Answers stand in the photos' order; a bad photo and a missing file disturb no other."""
    asked = [photos / "03.jpg", b"no photo", photos / "absent.jpg", photos / "07.jpg"] * 3
    searched = list(client.search_many(iter(asked), concurrency=3, limit=1))
    assert [each.photo for each in searched] == asked
    uris = [each.answer.results[0].uri for each in searched if each.answer is not None]
    assert uris == ["03.jpg", "07.jpg"] * 3
    codes = [each.error.code for each in searched if each.error is not None]
    assert codes == ["image_undecodable", "photo_unreadable"] * 3


def test_search_many_reads_only_a_little_ahead(client: Client, photos: Path) -> None:
    """Of an endless list no more is read than can be in flight."""
    num_read = 0

    def endless() -> Iterator[Path]:
        nonlocal num_read
        while True:
            num_read += 1
            yield photos / "03.jpg"

    answers = client.search_many(endless(), concurrency=2)
    next(answers)
    answers.close()  # type: ignore[attr-defined]
    assert num_read <= 4


def test_refusal_carries_what_the_problem_says(client: Client) -> None:
    """Code, status, detail and the id the log knows."""
    with pytest.raises(ServiceError) as caught:
        client.search(b"these are notes")
    error = caught.value
    assert (error.code, error.status) == ("image_undecodable", 400)
    assert error.detail
    assert error.request_id
    assert all(fact in str(error) for fact in (error.detail, error.code, error.request_id))


def test_health_and_ready(client: Client) -> None:
    """A running service is ready at once."""
    assert client.health().is_ready
    assert client.wait_ready(0).generation == "000001"


def test_waits_as_long_as_the_service_asks(clock: Clock) -> None:
    """429 and 503 are retried after their Retry-After, a lost connection after growing waits."""
    client = scripted(
        clock,
        problem(429, "queue_full", **{"Retry-After": "3"}),
        problem(503, "draining", **{"Retry-After": "5"}),
        httpx2.ConnectError("refused"),
        found(),
    )
    assert client.search(b"photo").generation == "000001"
    assert clock.slept == [3, 5, 2]


def test_jitter_only_lengthens_the_wait(clock: Clock) -> None:
    """The random part is added to what was asked for, and grows with the attempts."""
    rules = Retries(clock=clock.read, sleep=clock.sleep, uniform=lambda _low, high: high)
    answers = iter([ServiceError("", code="queue_full", status=429, retry_after_seconds=3.0)] * 2)

    def attempt() -> str:
        for error in answers:
            raise error
        return "done"

    assert rules.run(attempt) == "done"
    assert clock.slept == [3.5, 4]


@pytest.mark.parametrize(
    "answer",
    [
        problem(400, "image_undecodable"),
        problem(500, "internal"),
        problem(504, "deadline_exceeded"),
        httpx2.ReadTimeout("slow"),
        httpx2.RemoteProtocolError("cut"),
    ],
    ids=lambda answer: getattr(answer, "status_code", type(answer).__name__),
)
def test_other_failures_are_not_repeated(clock: Clock, answer: httpx2.Response | Exception) -> None:
    """What a second request would not cure, or what may have been done, is sent once."""
    with pytest.raises(ServiceError) as caught:
        scripted(clock, answer, found()).search(b"photo")
    assert not caught.value.is_passing
    assert clock.slept == []


def test_gives_up_after_its_attempts_and_its_time(clock: Clock) -> None:
    """Three attempts are three; a wait that would end too late is not begun."""
    full = [problem(429, "queue_full", **{"Retry-After": "1"}) for _ in range(9)]
    with pytest.raises(ServiceError, match="so it is"):
        scripted(clock, *full, max_attempts=3).search(b"photo")
    assert clock.slept == [1, 1]
    long_wait = problem(503, "not_ready", **{"Retry-After": "61"})
    with pytest.raises(ServiceError) as caught:
        scripted(clock, long_wait).search(b"photo")
    assert caught.value.retry_after_seconds == 61
    assert clock.slept == [1, 1]


def test_retry_after_may_be_a_date(clock: Clock) -> None:
    """A date counts from the answer's own, whatever this side's clock says."""
    dates = {
        "Date": "Sun, 22 Nov 2026 06:00:00 GMT",
        "Retry-After": "Sun, 22 Nov 2026 06:00:07 GMT",
    }
    scripted(clock, problem(503, "draining", **dates), found()).search(b"photo")
    assert clock.slept == [7]


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (httpx2.Response(502, text="<html>Bad Gateway</html>"), "unexpected_answer"),
        (httpx2.Response(200, json={"hello": "world"}), "unexpected_answer"),
        (httpx2.Response(404, json=["not", "ours"]), "unexpected_answer"),
        (httpx2.ReadTimeout("slow"), "timeout"),
        (httpx2.ReadError("cut"), "connection_lost"),
        (httpx2.UnsupportedProtocol("no http://"), "bad_url"),
    ],
)
def test_every_failure_is_one_of_the_family(
    clock: Clock, answer: httpx2.Response | Exception, code: str
) -> None:
    """A proxy's page, another program's JSON and a broken connection have codes too."""
    with pytest.raises(ServiceError) as caught:
        scripted(clock, answer).search(b"photo")
    assert caught.value.code == code


def test_wait_ready_waits_and_gives_up(clock: Clock) -> None:
    """It outlasts a start, and tells at the end what it was waiting for."""
    starting = httpx2.Response(503, json={"status": "starting"})
    begun = [httpx2.ConnectError("refused"), starting, httpx2.Response(200, json={"status": "ok"})]
    assert scripted(clock, *begun).wait_ready(10).status == "ok"
    with pytest.raises(ServiceError, match="starting"):
        scripted(clock, *[starting] * 9).wait_ready(2)


def test_key_comes_from_the_argument_or_the_environment() -> None:
    """The argument wins; without either none is sent."""
    sent: list[str | None] = []

    def note(request: httpx2.Request) -> httpx2.Response:
        sent.append(request.headers.get("authorization"))
        return httpx2.Response(200, json={"status": "ok"})

    for arguments in (
        {"environ": {"MULTIGRAIN_API_KEY": "env"}},
        {"environ": {"MULTIGRAIN_API_KEY": "env"}, "api_key": "given"},
        {"environ": {}},
    ):
        Client(transport=httpx2.MockTransport(note), **arguments).health()
    assert sent == ["Bearer env", "Bearer given", None]


def test_command_prints_hits_like_index_search(
    service: Service, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line of rank, cosine and uri for each hit; --json gives all of it."""
    asked = [str(photos / "05.jpg"), "--limit", "2", "--url", service.url]
    assert main(["search", *asked]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == "   1  1.0000  05.jpg"
    assert second.startswith("   2  ")
    assert main(["search", "--json", *asked]) == 0
    hits = json.loads(capsys.readouterr().out)
    assert [hit["rank"] for hit in hits] == [1, 2]
    assert hits[0]["uri"] == "05.jpg"
    assert hits[0]["metadata"]["paths"] == ["05.jpg"]
    assert main(["similar", hits[0]["id"], "--limit", "1", "--url", service.url]) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith(second.split()[-1])
    assert main(["embed", "--json", *asked[:1], "--url", service.url]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 512
    options = ["--dedup", "1", "--rerank", "kreciprocal", "--augment", "flip"]
    assert main(["search", *asked, *options]) == 0
    assert capsys.readouterr().out.splitlines()[0].split()[2:] == ["+0", "05.jpg"]
    narrow = '{"must": [{"field": "width", "lt": 9}]}'
    assert main(["search", *asked, "--filter", narrow, "--min-score", "0.5"]) == 0
    assert capsys.readouterr().out == ""


def test_command_tells_refusals_from_wrong_words(
    service: Service, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """1: the service said no, in its own words; 2: the command line is wrong."""
    assert main(["search", __file__, "--url", service.url]) == 1
    assert "image_undecodable, 400" in capsys.readouterr().err
    assert main(["serch", "photo.jpg"]) == 2
    assert "did you mean search" in capsys.readouterr().err
    assert main(["search", str(photos / "05.jpg"), str(photos / "06.jpg")]) == 2
    assert main(["search", str(photos / "05.jpg"), "--filter", "label=cat"]) == 2
    assert "is no JSON" in capsys.readouterr().err
    assert main([]) == 2
    capsys.readouterr()
    assert main(["--help"]) == 0
    assert "health" in capsys.readouterr().out


def test_command_tells_the_health(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    """0 while searches are answered; 1, and why, when nobody is there."""
    assert main(["health", "--wait", "5", "--url", service.url]) == 0
    assert capsys.readouterr().out.startswith("ok  generation 000001")
    assert main(["health", "--url", NOWHERE]) == 1
    assert "unreachable" in capsys.readouterr().err


def documented_commands() -> list[str]:
    """The lines of docs/service.md that call the client."""
    text = (Path(__file__).parents[1] / "docs" / "service.md").read_text()
    return re.findall(r"^python -m service\.client (.*)$", text, re.MULTILINE)


def test_documented_commands_work(
    changing: Service,
    tmp_path: Path,
    jpeg: Callable[[int], bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each line of the client's documentation, one after another, on photos of these names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MULTIGRAIN_API_KEY", ADMIN_KEY)
    monkeypatch.setenv("MULTIGRAIN_URL", changing.url)
    for seed, name in enumerate(("photo.jpg", "new.jpg"), 90):
        Path(name).write_bytes(jpeg(seed))
    for command in documented_commands():
        words = shlex.split(command.replace("4711", "3"))
        if "--url" in words:
            words[words.index("--url") + 1] = changing.url
        assert main(words) == 0, command


def test_module_runs_from_the_shell_and_hides_the_key() -> None:
    """`python -m service.client` answers without torch, and prints no key."""
    words = ["search", "a.jpg", "--print-config"]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "service.client", *words],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"MULTIGRAIN_API_KEY": "secret"},
    )
    assert "limit: 10" in done.stdout
    assert "secret" not in done.stdout
    assert not re.search(r"\| +torch$", done.stderr, re.MULTILINE)
