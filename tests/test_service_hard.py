"""Every hard file posted to a running service: the answer its manifest asks for."""

import json
from pathlib import Path
from typing import Any

import pytest
from service_running import Service

from multigrain.heif import can_open_heif

pytest_plugins = ["service_fixtures"]

MAX_SECONDS = 10


def records(test_data: Path, want: str) -> list[dict[str, Any]]:
    manifest = json.loads((test_data / "hard" / "manifest.json").read_text())
    chosen = [record for record in manifest if record["want"] == want]
    assert chosen
    return chosen


def ask(service: Service, path: Path) -> tuple[int, dict[str, Any]]:
    """Post one file as a form, then as a raw body; both must agree, and the service be well."""
    data = path.read_bytes()
    form = service.search(data, limit=3)
    raw = service.client.post("/search?limit=3", content=data, headers={"Content-Type": "image/x"})
    assert form.status_code == raw.status_code, path.name
    assert form.elapsed.total_seconds() < MAX_SECONDS, path.name
    assert service.health().status_code == 200, path.name
    return form.status_code, form.json()


def is_refusal(status: int, body: dict[str, Any]) -> bool:
    return 400 <= status < 500 and body["status"] == status and bool(body["detail"])


def test_good_files_are_searched(service: Service, test_data: Path) -> None:
    """Each `ok` file is answered, with its upright size where the manifest states it."""
    faults = []
    for record in records(test_data, "ok"):
        status, body = ask(service, test_data / "hard" / record["file"])
        size = [body["query"]["width"], body["query"]["height"]] if status == 200 else None
        if status != 200 or size != record.get("rgb_size", size):
            faults.append((record["file"], status, size, body.get("detail")))
    assert faults == []


CODES = {
    "not_empty.jpg": "empty_image",
    "not_pdf.jpg": "unsupported_media_type",
    "not_zip.jpg": "unsupported_media_type",
    "not_image.svg": "unsupported_media_type",
    "not_xml_bomb.svg": "unsupported_media_type",
    "decompression_bomb.ico": "unsupported_media_type",
    "corrupted.heic": "image_undecodable" if can_open_heif() else "unsupported_media_type",
    "bomb_20000x20000_1bit.png": "image_too_many_pixels",
    "decompression_bomb.gif": "image_too_many_pixels",
    "bomb_header_65500.jpg": "image_too_many_pixels",
}


def test_bad_files_are_refused(service: Service, test_data: Path) -> None:
    """Each `reject` file gets the problem of what it is; what is none of these, no photo."""
    codes = dict[str, str]()
    for record in records(test_data, "reject"):
        status, body = ask(service, test_data / "hard" / record["file"])
        assert is_refusal(status, body), record["file"]
        codes[Path(record["file"]).name] = body["code"]
    assert codes == {name: CODES.get(name, "image_undecodable") for name in codes}
    assert set(CODES) <= set(codes)


def test_doubtful_files_get_the_same_answer_twice(service: Service, test_data: Path) -> None:
    """Each `either` file is searched or refused, and the same again."""
    faults = []
    for record in records(test_data, "either"):
        path = test_data / "hard" / record["file"]
        (first, body), (second, _) = ask(service, path), ask(service, path)
        if first != second or not (first == 200 or is_refusal(first, body)):
            faults.append((record["file"], first, second, body.get("detail")))
    assert faults == []


STATUS = Path("/proc/self/status")
MAX_GROWTH_KIB = 200 * 1024  # of the test beside the service, too; the bombs want gigabytes


def of_status(name: str) -> int:
    """KiB of a line of /proc/self/status."""
    return int(STATUS.read_text().partition(f"{name}:")[2].split()[0])


@pytest.mark.skipif(not STATUS.exists(), reason="memory is read as Linux tells it")
def test_bombs_take_no_memory(service: Service, test_data: Path) -> None:
    """Pixels are counted in the header, text chunks are bounded: nothing large is unpacked."""
    bombs = sorted((test_data / "hard" / "files").glob("*bomb*"))
    assert len(bombs) >= 6
    Path("/proc/self/clear_refs").write_text("5")  # the peak is forgotten
    before = of_status("VmHWM")
    for bomb in bombs:
        status, body = ask(service, bomb)
        assert status == 200 or is_refusal(status, body), bomb.name
    assert of_status("VmHWM") - before < MAX_GROWTH_KIB


def test_a_large_form_makes_no_temporary_file(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bodies stay in memory, whether they are read to the end or refused for their size."""

    def refuse() -> None:
        raise AssertionError("a temporary file")

    monkeypatch.setattr("tempfile._get_candidate_names", refuse)
    for num_bytes, status in ((9 * 2**20, 400), (11 * 2**20, 413)):
        response = service.client.post("/search", files={"image": bytes(num_bytes)})
        assert response.status_code == status, response.text
