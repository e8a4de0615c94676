"""Published files, from the data directory or from their publisher; every file verified.

`wfdb.dl_database` and torchvision's downloads are not resumed, hence this. requests rather than urllib: one kept
connection serves 145 files (a TLS handshake each would take longer than the data).
"""

import gzip
import hashlib
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests
from filelock import FileLock
from tqdm import tqdm
from urllib3.exceptions import NewConnectionError

from ecgwatch.errors import DataError

ATTEMPTS = 4  # per file; each goes on where the last broke off
TIMEOUT_S = 30.0  # without a byte
_CHUNK_BYTES = 1 << 12  # what a break may cost: an incomplete chunk is lost


def sha256(file: Path) -> str:
    """Return a file's SHA-256, hex."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def unpacked_sha256(file: Path) -> str:
    """Return the SHA-256, hex, of what a gzip file unpacks to; "" where it is none, or is damaged."""
    try:
        with gzip.open(file) as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except (gzip.BadGzipFile, EOFError, zlib.error):
        return ""


@dataclass(frozen=True)
class Release:
    """Files as they were published, known by their SHA-256.

    title, edition: in words, what they are and which ones; folder: their place in the data directory; hashes: by file
    name; listing: one of these that lists the hashes of further files, `listed`; digest: what is hashed of a file;
    instead: in words, what is taken in the place of these files.
    """

    title: str
    edition: str
    url: str
    folder: str
    hashes: Mapping[str, str]
    listing: str = ""
    listed: tuple[str, ...] = ()
    digest: Callable[[Path], str] = sha256
    instead: str = ""

    @property
    def setting(self) -> str:
        """Say what else can be done about absent files."""
        return (
            "set the data directory ([data] directory in config.toml, ECGWATCH_DATA_DIRECTORY or --data) to a folder "
            f"that holds {self.folder}/ with these files" + (f", or with {self.instead}" if self.instead else "")
        )


def ensure(folder: Path, release: Release, *, offline: bool = False, pause_s: float = 1.0) -> Path:
    """Return `folder` with all files of the release in it, verified; those that are missing are downloaded.

    A folder that is whole is only read. A download that was interrupted is continued from its `.part` files. Files
    that are there and differ from the release are never overwritten. pause_s: before a second attempt at a file; it
    doubles each time. Raises DataError, one line that says what to do.
    """
    missing = [name for name in (*release.hashes, *release.listed) if not (folder / name).is_file()]
    if missing and offline:
        raise DataError(_absent(folder, release, missing, "and no download was wanted"))
    try:
        # several processes that begin at once would write the same `.part` file
        with requests.Session() as session, _alone(folder) if missing else nullcontext():
            missing = [name for name in missing if not (folder / name).is_file()]
            # a compressed answer could be neither continued nor counted
            session.headers.update({"Accept-Encoding": "identity", "User-Agent": "ecgwatch"})
            _complete(session, folder, release, release.hashes, missing, pause_s)
            if release.listed:
                _complete(session, folder, release, _listed_hashes(folder, release), missing, pause_s)
    except requests.RequestException as error:
        still = [name for name in missing if not (folder / name).is_file()]
        raise DataError(_absent(folder, release, still, f"and {_why(error, release.url)}")) from None
    except OSError as error:
        raise DataError(f"{release.title}: {error}; {release.setting}") from None
    return folder


def _alone(folder: Path) -> FileLock:
    folder.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(folder.with_name(f".{folder.name}.lock"))


def _complete(
    session: requests.Session,
    folder: Path,
    release: Release,
    hashes: Mapping[str, str],
    missing: list[str],
    pause_s: float,
) -> None:
    """Verify the files that are there, download the others."""
    _verify(folder, release, {name: digest for name, digest in hashes.items() if name not in missing})
    absent = [name for name in hashes if name in missing]
    for name in (bar := tqdm(absent, unit="file", desc=release.title, disable=not absent)):
        bar.set_postfix_str(name)
        _fetch(session, release, folder / name, hashes[name], pause_s)


def _absent(folder: Path, release: Release, missing: list[str], why: str) -> str:
    named = ", ".join(missing[:4]) + (", ..." if len(missing) > 4 else "")
    return (
        f"{release.title}: {len(missing)} of the release's files are missing in {folder} ({named}) {why}; "
        f"run again where {urlsplit(release.url).hostname} can be reached, or {release.setting}"
    )


def _why(error: requests.RequestException, url: str) -> str:
    host = urlsplit(url).netloc
    if error.response is not None:
        return f"{host} answered {error.response.status_code} {error.response.reason} for {error.response.url}"
    if isinstance(error, requests.Timeout):
        return f"{host} did not answer within {TIMEOUT_S:g} s"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return f"{host} broke off {ATTEMPTS} times"
    return f"{host} could not be reached"


def _listed_hashes(folder: Path, release: Release) -> Mapping[str, str]:
    """Read the release's list; lines are '<sha256> <name>'."""
    file = folder / release.listing
    pairs = (line.split(maxsplit=1) for line in file.read_text(encoding="utf-8").splitlines())
    hashes = {name: digest for digest, name in pairs}
    if unlisted := [name for name in release.listed if name not in hashes]:
        raise DataError(f"{file} does not list {', '.join(unlisted)}")
    return {name: hashes[name] for name in release.listed}


def _verify(folder: Path, release: Release, hashes: Mapping[str, str]) -> None:
    """A hundred MB take a tenth of a second or two: no cache of what was verified, which could be wrong."""
    if changed := [name for name, digest in hashes.items() if release.digest(folder / name) != digest]:
        raise DataError(
            f"{len(changed)} files in {folder} differ from {release.edition} of the {release.title}: "
            f"{', '.join(changed)}; remove them and run again, or {release.setting}"
        )


def _fetch(session: requests.Session, release: Release, file: Path, digest: str, pause_s: float) -> None:
    """Download one file; it gets its name when it is whole and verified."""
    url, part = f"{release.url}/{file.name}", file.with_name(file.name + ".part")
    for attempt in range(1, ATTEMPTS + 1):
        continued = part.exists()
        try:
            _receive(session, url, part)
        except requests.RequestException as error:
            if attempt == ATTEMPTS or _final(error):
                raise
            time.sleep(pause_s * 2 ** (attempt - 1))
            continue
        if release.digest(part) == digest:
            part.replace(file)
            return
        part.unlink()
        if not continued:  # a part from elsewhere may have been wrong; a file in one piece was sent wrong
            break
    raise DataError(
        f"{url}: the SHA-256 of what was sent is not the published one; run again later, or {release.setting}"
    )


def _final(error: requests.RequestException) -> bool:
    """Tell whether trying again at once is useless: no such file, or no network."""
    if error.response is not None:
        return error.response.status_code < 500
    cause = error.args[0] if error.args else None
    return isinstance(getattr(cause, "reason", None), NewConnectionError)


def _receive(session: requests.Session, url: str, part: Path) -> None:
    """Append what is missing of a partial file; start it anew where the server cannot continue."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
        if have and response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # nothing is missing: its hash will tell
        response.raise_for_status()
        continues = response.status_code == requests.codes.partial_content
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab" if continues else "wb") as opened:
            for chunk in response.iter_content(_CHUNK_BYTES):
                opened.write(chunk)
