"""Reading records and cutting them into beats."""

import itertools
import sys
from dataclasses import replace

import numpy as np
import pytest
from wfdb.io.annotation import ann_labels, is_qrs

from ecgwatch.errors import DataError
from ecgwatch.records import AAMI, AFTER_S, BEFORE_S, RR_INTERVALS, Record, beats_of, read_excerpt, read_wfdb
from tests.wfdb_records import EXCERPTS, excerpt, write_record

FS_HZ = 100.0


def record(r_samples: list[int], seconds: float = 60) -> Record:
    """A signal that counts its samples, so that a cut tells where it came from."""
    signal = np.arange(round(seconds * FS_HZ), dtype=np.float32)
    return Record("made", FS_HZ, "MLII", signal, np.array(r_samples), ("N",) * len(r_samples))


class TestBeatsOf:
    def test_r_stands_where_the_beat_says_with_the_signal_around_it(self):
        beat = beats_of(record([1000, 1080]), "p")[0]
        assert beat.samples[beat.r_index] == 1000
        assert beat.r_index == BEFORE_S * FS_HZ
        assert len(beat.samples) == (BEFORE_S + AFTER_S) * FS_HZ

    def test_a_window_that_an_edge_cuts_is_shorter_and_r_keeps_its_place(self):
        first, last = beats_of(record([10, 5990]), "p")
        assert (first.r_index, first.samples[first.r_index]) == (10, 10)
        assert (len(last.samples), last.samples[last.r_index]) == (60, 5990)

    def test_rr_intervals_are_those_before_the_beat_oldest_first_in_milliseconds(self):
        beats = beats_of(record([100, 180, 270, 370]), "p")
        assert [beat.rr_ms.tolist() for beat in beats] == [[], [800], [800, 900], [800, 900, 1000]]

    def test_rr_intervals_are_as_many_as_a_message_carries_the_latest(self):
        beats = beats_of(record([50 * n + n * n // 2 for n in range(1, 60)]), "p")
        assert len(beats[-1].rr_ms) == RR_INTERVALS
        assert beats[-1].rr_ms.tolist() == [10 * (r2 - r1) for r1, r2 in _pairs(beats)][-RR_INTERVALS:]

    def test_time_is_that_of_the_r_peak_after_the_start(self):
        assert [beat.r_time_ms for beat in beats_of(record([100, 180]), "p", start_ms=5000)] == [6000, 6800]

    def test_patient_and_lead_are_on_every_beat_and_ids_differ(self):
        beats = beats_of(record([100, 180]), "ward-3")
        assert [beat.id for beat in beats] == ["ward-3/MLII/1000", "ward-3/MLII/1800"]


def _pairs(beats):
    r = [round(beat.r_time_ms * FS_HZ / 1000) for beat in beats]
    return list(itertools.pairwise(r))


def test_what_wfdb_calls_a_beat_has_a_class_and_nothing_else_but_flutter_waves():
    beats = {label.symbol for label in ann_labels if is_qrs[label.label_store]}
    assert set(AAMI) == beats - {"!"}


def test_every_class_of_the_standard_is_reached_by_its_symbols():
    assert {kind: "".join(s for s in AAMI if AAMI[s] == kind) for kind in "NSVFQ"} == {
        "N": "NLRBejn",
        "S": "AaJS",
        "V": "VEr",
        "F": "F",
        "Q": "/fQ?",
    }


def test_classes_follow_the_symbols():
    assert replace(record([100, 200, 300]), symbols=("L", "A", "/")).classes.tolist() == ["N", "S", "Q"]


def test_a_wfdb_record_comes_back_as_written(tmp_path):
    written = excerpt("233")
    read = read_wfdb(write_record(tmp_path, written))
    assert (read.name, read.fs_hz, read.lead) == (written.name, 360.0, written.lead)
    assert np.abs(read.signal - written.signal).max() < 1e-3
    assert read.signal.dtype == np.float32
    assert read.r_samples.tolist() == written.r_samples.tolist()
    assert read.symbols == written.symbols


def test_annotations_that_are_no_beat_are_left_out(tmp_path):
    written = excerpt("233")
    symbols = ("+", *written.symbols[1:])
    read = read_wfdb(write_record(tmp_path, replace(written, symbols=symbols)))
    assert read.r_samples.tolist() == written.r_samples[1:].tolist()
    assert read.symbols == written.symbols[1:]


def test_a_lead_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    path = write_record(tmp_path, excerpt("233"))
    with pytest.raises(DataError, match=r"no lead V9; it has MLII"):
        read_wfdb(path, "V9")


@pytest.mark.parametrize("suffix", ["hea", "dat", "atr"])
def test_a_missing_file_is_named_in_one_line(tmp_path, suffix):
    path = write_record(tmp_path, excerpt("233"))
    path.with_suffix(f".{suffix}").unlink()
    with pytest.raises(DataError, match=rf"{path.name}\.{suffix} is missing") as refused:
        read_wfdb(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("suffix", ["hea", "dat", "atr"])
def test_a_file_of_something_else_is_refused_in_one_line(tmp_path, suffix):
    path = write_record(tmp_path, excerpt("233"))
    path.with_suffix(f".{suffix}").write_bytes(b"\xff\xfenothing of WFDB\x00" * 3)
    with pytest.raises(DataError, match=str(path)) as refused:
        read_wfdb(path)
    assert "\n" not in str(refused.value)


def test_without_wfdb_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wfdb", None)
    with pytest.raises(DataError, match=r"pip install '\.\[records\]'"):
        read_wfdb(tmp_path / "100")


@pytest.mark.data
@pytest.mark.parametrize(("name", "lead", "beats"), [("100", "MLII", 2273), ("102", "V5", 2187), ("114", "MLII", 1879)])
def test_mlii_is_taken_where_there_is_one_else_the_first_lead(mitdb, name, lead, beats):
    read = read_wfdb(mitdb / name)
    assert (read.lead, len(read.r_samples), read.fs_hz) == (lead, beats, 360.0)


@pytest.mark.data
def test_an_excerpt_is_the_record_it_was_taken_from_to_the_last_bit(mitdb):
    for file in sorted(EXCERPTS.glob("*.npz")):
        cut = read_excerpt(file)
        whole = read_wfdb(mitdb / cut.name[:3], cut.lead)
        starts = np.flatnonzero(whole.signal[: len(whole.signal) - len(cut.signal)] == cut.signal[0])
        found = [at for at in starts if np.array_equal(whole.signal[at : at + len(cut.signal)], cut.signal)]
        assert len(found) == 1, file.name
        inside = (whole.r_samples >= found[0]) & (whole.r_samples < found[0] + len(cut.signal))
        assert cut.r_samples.tolist() == (whole.r_samples[inside] - found[0]).tolist()
