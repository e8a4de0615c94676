"""Downloading published files, from a small web server on loopback that can misbehave."""

import gzip
import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ecgwatch.errors import DataError
from training.datasets import download
from training.datasets.arrhythmia import MITDB, SUMS

NAMES = ("100.hea", "100.dat")


@dataclass
class Publisher:
    """A publisher of files, and what it does wrong.

    breaks_off: after so many bytes, the next answers for a name break off; asked: (name, Range header or None).
    """

    files: dict[str, bytes]
    address: str = ""
    ranges: bool = True
    breaks_off: dict[str, list[int]] = field(default_factory=dict)
    fails: dict[str, list[int]] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        name = request.path.removeprefix("/")
        wanted = request.headers.get("Range")
        self.asked.append((name, wanted))
        if self.fails.get(name):
            return request.send_error(self.fails[name].pop(0))
        if name not in self.files:
            return request.send_error(404)
        body, start = self.files[name], 0
        if wanted and self.ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                return request.send_error(416)
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            request.send_response(200)
        request.send_header("Content-Length", str(len(body) - start))
        request.end_headers()
        stop = start + self.breaks_off[name].pop(0) if self.breaks_off.get(name) else len(body)
        request.wfile.write(body[start:stop])
        request.close_connection = stop < len(body)
        return None


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    files = {"100.hea": b"100 2 360\n", "100.dat": bytes(range(256)) * 800}
    files[SUMS] = "".join(f"{sha(data)} {name}\n" for name, data in files.items()).encode()
    made = Publisher(files)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            made.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made.address = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        server.shutdown()
        thread.join()


def get(folder: Path, publisher: Publisher, offline: bool = False, sums_sha256: str = "") -> Path:
    release = replace(
        MITDB, url=publisher.address, hashes={SUMS: sums_sha256 or sha(publisher.files[SUMS])}, listed=NAMES
    )
    return download.ensure(folder, release, offline=offline, pause_s=0)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_all_files_arrive_whole_and_nothing_else(tmp_path, publisher):
    assert get(tmp_path / "data" / "mitdb", publisher) == tmp_path / "data" / "mitdb"
    assert contents(tmp_path / "data" / "mitdb") == publisher.files


def test_several_who_begin_at_once_fetch_each_file_once(tmp_path, publisher):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: get(tmp_path / "mitdb", publisher), range(4)))
    assert found == [tmp_path / "mitdb"] * 4
    assert contents(tmp_path / "mitdb") == publisher.files
    assert sorted(name for name, _ in publisher.asked) == sorted(publisher.files)


def test_a_whole_folder_is_only_read(tmp_path, publisher):
    get(tmp_path, publisher)
    publisher.asked.clear()
    tmp_path.chmod(0o500)
    get(tmp_path, publisher)
    get(tmp_path, publisher, offline=True)
    assert publisher.asked == []


def test_only_what_is_missing_is_asked_for(tmp_path, publisher):
    get(tmp_path, publisher)
    (tmp_path / "100.hea").unlink()
    publisher.asked.clear()
    get(tmp_path, publisher)
    assert publisher.asked == [("100.hea", None)]


def test_a_file_that_broke_off_is_continued_where_it_broke_off(tmp_path, publisher):
    publisher.breaks_off["100.dat"] = [102_400, 40_960]
    get(tmp_path, publisher)
    assert contents(tmp_path) == publisher.files
    starts = [wanted for name, wanted in publisher.asked if name == "100.dat"]
    assert starts == [None, "bytes=102400-", "bytes=143360-"]


def test_a_run_that_was_interrupted_is_continued_by_the_next(tmp_path, publisher):
    publisher.breaks_off["100.dat"] = [40_960] * download.ATTEMPTS
    with pytest.raises(
        DataError, match=r"1 of the release's files are missing in .* \(100.dat\) and 127.0.0.1.* broke off"
    ):
        get(tmp_path, publisher)
    assert sorted(contents(tmp_path)) == ["100.dat.part", "100.hea", SUMS]
    publisher.asked.clear()
    get(tmp_path, publisher)
    assert contents(tmp_path) == publisher.files
    assert publisher.asked == [("100.dat", "bytes=163840-")]


def test_a_server_that_cannot_continue_sends_the_file_anew(tmp_path, publisher):
    publisher.ranges = False
    publisher.breaks_off["100.dat"] = [102_400]
    get(tmp_path, publisher)
    assert contents(tmp_path) == publisher.files
    assert [name for name, _ in publisher.asked].count("100.dat") == 2


def test_a_partial_file_that_is_already_whole_only_gets_its_name(tmp_path, publisher):
    (tmp_path / "100.dat.part").write_bytes(publisher.files["100.dat"])
    get(tmp_path, publisher)
    assert contents(tmp_path) == publisher.files


@pytest.mark.parametrize("size", [10, 10_000_000], ids=["shorter", "longer"])
def test_a_partial_file_of_something_else_is_dropped(tmp_path, publisher, size):
    (tmp_path / "100.dat.part").write_bytes(b"x" * size)
    get(tmp_path, publisher)
    assert contents(tmp_path) == publisher.files


def test_a_server_error_that_passes_is_survived(tmp_path, publisher):
    publisher.fails["100.dat"] = [503, 500]
    get(tmp_path, publisher)
    assert contents(tmp_path) == publisher.files


def test_a_file_that_is_not_there_is_named_and_not_asked_for_again(tmp_path, publisher):
    del publisher.files["100.dat"]
    with pytest.raises(DataError, match=r"answered 404 Not Found for http://127.0.0.1:\d+/100.dat"):
        get(tmp_path, publisher)
    assert [name for name, _ in publisher.asked].count("100.dat") == 1


def test_a_file_with_a_wrong_hash_is_refused_and_not_kept(tmp_path, publisher):
    publisher.files["100.dat"] = publisher.files["100.dat"][:-1] + b"?"
    with pytest.raises(DataError, match=r"/100.dat: the SHA-256 of what was sent is not the published one"):
        get(tmp_path, publisher)
    assert sorted(contents(tmp_path)) == ["100.hea", SUMS]


@pytest.fixture
def packed(publisher: Publisher) -> download.Release:
    """A release of one gzip file, known by what it unpacks to."""
    publisher.files["images.gz"] = gzip.compress(b"pixels" * 1000, mtime=1)
    hashes = {"images.gz": sha(b"pixels" * 1000)}
    return download.Release("images", "the set", publisher.address, "images", hashes, digest=download.unpacked_sha256)


def test_a_file_known_by_what_it_unpacks_to_may_be_packed_in_another_way(tmp_path, publisher, packed):
    download.ensure(tmp_path, packed)
    (tmp_path / "images.gz").write_bytes(gzip.compress(b"pixels" * 1000, compresslevel=1, mtime=2))
    publisher.asked.clear()
    download.ensure(tmp_path, packed)
    assert publisher.asked == []


@pytest.mark.parametrize(
    "damage",
    [b"no gzip", gzip.compress(b"other", mtime=0), gzip.compress(b"pixels" * 1000, mtime=0)[:-20], b""],
    ids=["no gzip", "another", "cut", "empty"],
)
def test_a_packed_file_that_is_damaged_or_another_is_named_and_never_overwritten(tmp_path, packed, damage):
    (tmp_path / "images.gz").write_bytes(damage)
    with pytest.raises(DataError, match=r"1 files in .* differ from the set of the images: images.gz; remove them"):
        download.ensure(tmp_path, packed)
    assert (tmp_path / "images.gz").read_bytes() == damage


def test_a_changed_list_of_hashes_is_refused(tmp_path, publisher):
    true_list = sha(publisher.files[SUMS])
    publisher.files["100.dat"] = b"another signal"
    publisher.files[SUMS] = f"{sha(publisher.files['100.dat'])} 100.dat\n".encode()
    with pytest.raises(DataError, match=r"SHA256SUMS.txt: the SHA-256 of what was sent"):
        get(tmp_path, publisher, sums_sha256=true_list)
    (tmp_path / SUMS).write_bytes(publisher.files[SUMS])
    with pytest.raises(DataError, match=r"1 files in .* differ from release 1.0.0 .*: SHA256SUMS.txt; remove them"):
        get(tmp_path, publisher, sums_sha256=true_list)


def test_a_file_of_the_user_that_differs_is_named_and_never_overwritten(tmp_path, publisher):
    get(tmp_path, publisher)
    (tmp_path / "100.hea").write_bytes(b"mine")
    for offline in (False, True):
        with pytest.raises(DataError, match=r"1 files in .* differ from release 1.0.0 .*: 100.hea; remove them"):
            get(tmp_path, publisher, offline=offline)
    assert (tmp_path / "100.hea").read_bytes() == b"mine"


@pytest.mark.parametrize("offline", [True, False], ids=["offline demanded", "nothing answers"])
def test_absent_files_without_network_are_one_line_with_files_folder_and_setting(tmp_path, offline):
    with pytest.raises(DataError) as caught:
        download.ensure(tmp_path / "mitdb", replace(MITDB, url="http://127.0.0.1:9"), offline=offline)
    text = str(caught.value)
    assert "\n" not in text
    for part in ("145 of", "100.hea", str(tmp_path / "mitdb"), "[data] directory", "ECGWATCH_DATA_DIRECTORY", "--data"):
        assert part in text
    assert not (tmp_path / "mitdb").exists()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, publisher):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataError, match=r"MIT-BIH records: .*file.*; set the data directory") as caught:
        get(tmp_path / "file" / "mitdb", publisher)
    assert "\n" not in str(caught.value)


def test_the_release_has_three_files_for_each_of_48_records():
    assert len(MITDB.listed) == len(set(MITDB.listed)) == 144


@pytest.mark.data
def test_the_real_release_verifies_by_its_pinned_list(mitdb):
    assert download.ensure(mitdb, MITDB, offline=True) == mitdb
