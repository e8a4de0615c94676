"""The MIT-BIH Arrhythmia Database, from the data directory or from PhysioNet; every file verified.

Goldberger et al. 2000, Moody & Mark 2001; Open Data Commons Attribution. `wfdb.dl_database` neither resumes nor
verifies, hence this. requests rather than urllib: one kept connection serves 145 files (a TLS handshake each would
take longer than the data).
"""

import hashlib
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import requests
from tqdm import tqdm
from urllib3.exceptions import NewConnectionError

from ecgwatch.errors import DataError
from training.datasets.arrhythmia import RECORDS

MITDB = "https://physionet.org/files/mitdb/1.0.0"
SUMS = "SHA256SUMS.txt"
# Release 1.0.0's list of hashes is itself known by its hash: a changed list is refused like a changed record.
SUMS_SHA256 = "b61158a96d5f2ca80edfb354a9a66a6324836c390a84e1966dcee2b907d6be43"
FILES = tuple(f"{record}.{suffix}" for record in RECORDS for suffix in ("hea", "dat", "atr"))

ATTEMPTS = 4  # per file; each goes on where the last broke off
TIMEOUT_S = 30.0  # without a byte
_CHUNK_BYTES = 1 << 12  # what a break may cost: an incomplete chunk is lost
_SETTING = (
    "set the data directory ([data] directory in config.toml, ECGWATCH_DATA_DIRECTORY or --data) to a folder that "
    "holds mitdb/ with these files"
)


def ensure_mitdb(
    folder: Path,
    *,
    offline: bool = False,
    base_url: str = MITDB,
    files: Iterable[str] = FILES,
    sums_sha256: str = SUMS_SHA256,
    pause_s: float = 1.0,
) -> Path:
    """Return `folder` with all files of the release in it, verified; those that are missing are downloaded.

    A folder that is whole is only read. A download that was interrupted is continued from its `.part` files. Files
    that are there and differ from the release are never overwritten. pause_s: before a second attempt at a file; it
    doubles each time. Raises DataError, one line that says what to do.
    """
    wanted = tuple(files)
    missing = [name for name in (SUMS, *wanted) if not (folder / name).is_file()]
    if missing and offline:
        raise DataError(_absent(folder, missing, "and no download was wanted"))
    try:
        with requests.Session() as session:
            # a compressed answer could be neither continued nor counted
            session.headers.update({"Accept-Encoding": "identity", "User-Agent": "ecgwatch"})
            if SUMS in missing:
                _fetch(session, f"{base_url}/{SUMS}", folder / SUMS, sums_sha256, pause_s)
            hashes = _hashes(folder / SUMS, sums_sha256, wanted)
            _verify(folder, {name: hashes[name] for name in wanted if name not in missing})
            absent = [name for name in wanted if name in missing]
            for name in (bar := tqdm(absent, unit="file", desc="MIT-BIH records", disable=not absent)):
                bar.set_postfix_str(name)
                _fetch(session, f"{base_url}/{name}", folder / name, hashes[name], pause_s)
    except requests.RequestException as error:
        still = [name for name in missing if not (folder / name).is_file()]
        raise DataError(_absent(folder, still, f"and {_why(error, base_url)}")) from None
    except OSError as error:
        raise DataError(f"MIT-BIH records: {error}; {_SETTING}") from None
    return folder


def _absent(folder: Path, missing: list[str], why: str) -> str:
    named = ", ".join(missing[:4]) + (", ..." if len(missing) > 4 else "")
    return (
        f"MIT-BIH records: {len(missing)} of the release's files are missing in {folder} ({named}) {why}; "
        f"run again where {urlsplit(MITDB).hostname} can be reached, or {_SETTING}"
    )


def _why(error: requests.RequestException, base_url: str) -> str:
    host = urlsplit(base_url).netloc
    if error.response is not None:
        return f"{host} answered {error.response.status_code} {error.response.reason} for {error.response.url}"
    if isinstance(error, requests.Timeout):
        return f"{host} did not answer within {TIMEOUT_S:g} s"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return f"{host} broke off {ATTEMPTS} times"
    return f"{host} could not be reached"


def _hashes(file: Path, sums_sha256: str, wanted: tuple[str, ...]) -> Mapping[str, str]:
    """Read the release's list; lines are '<sha256> <name>'."""
    if sha256(file) != sums_sha256:
        raise DataError(f"{file} is not the list of release 1.0.0; remove it and run again")
    pairs = (line.split(maxsplit=1) for line in file.read_text(encoding="utf-8").splitlines())
    hashes = {name: digest for digest, name in pairs}
    if unlisted := [name for name in wanted if name not in hashes]:
        raise DataError(f"{file} does not list {', '.join(unlisted)}")
    return hashes


def _verify(folder: Path, hashes: Mapping[str, str]) -> None:
    """All 88 MB take a tenth of a second or two: no cache of what was verified, which could be wrong."""
    if changed := [name for name, digest in hashes.items() if sha256(folder / name) != digest]:
        raise DataError(
            f"{len(changed)} files in {folder} differ from release 1.0.0 of the MIT-BIH records: {', '.join(changed)}; "
            f"remove them and run again, or {_SETTING}"
        )


def sha256(file: Path) -> str:
    """Return a file's SHA-256, hex."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _fetch(session: requests.Session, url: str, file: Path, digest: str, pause_s: float) -> None:
    """Download one file; it gets its name when it is whole and verified."""
    part = file.with_name(file.name + ".part")
    for attempt in range(1, ATTEMPTS + 1):
        continued = part.exists()
        try:
            _receive(session, url, part)
        except requests.RequestException as error:
            if attempt == ATTEMPTS or _final(error):
                raise
            time.sleep(pause_s * 2 ** (attempt - 1))
            continue
        if sha256(part) == digest:
            part.replace(file)
            return
        part.unlink()
        if not continued:  # a part from elsewhere may have been wrong; a file in one piece was sent wrong
            break
    raise DataError(f"{url}: the SHA-256 of what was sent is not the published one; run again later, or {_SETTING}")


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
