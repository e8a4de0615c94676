"""The ready-made CSV files, made small here in their published form."""

import numpy as np
import pytest

from ecgwatch.errors import DataError
from training.datasets import heartbeat_csv as csv


def rows(labels, seed=0, signal=100) -> np.ndarray:
    """Beats with `signal` values above 0, zeros after them, and these labels."""
    values = np.zeros((len(labels), csv.LENGTH + 1))
    values[:, :signal] = np.random.default_rng(seed).uniform(0.1, 1, (len(labels), signal))
    values[:, -1] = labels
    return values


def write(file, values) -> None:
    np.savetxt(file, values, delimiter=",", fmt="%.18e")  # as the published files are


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / csv.TRAIN, rows([0] * 200 + [1, 2, 3, 4]))
    write(tmp_path / csv.TEST, rows([0] * 100 + [4], seed=1))
    return tmp_path


def test_values_and_labels_come_back(tmp_path):
    made = rows([0, 1, 2, 3, 4])
    write(tmp_path / "mine.csv", made)
    x, classes = csv.read(tmp_path / "mine.csv")
    assert x.dtype == np.float32
    assert np.array_equal(x, made[:, :187].astype(np.float32))
    assert classes.tolist() == ["N", "S", "V", "F", "Q"]


@pytest.mark.parametrize(
    ("line", "text", "why"),
    [
        (3, "0.5,none" + ",0" * 186, "not 188 numbers"),
        (2, "0.5" + ",0" * 186, "not 188 numbers"),
        (2, "", None),
        (1, "# a comment", "not 188 numbers"),
        (2, "1.01" + ",0" * 187, r"outside \[0, 1\]"),
        (3, "-0.01" + ",0" * 187, r"outside \[0, 1\]"),
        (3, "nan" + ",0" * 187, r"outside \[0, 1\]"),
        (1, "1" + ",0" * 186 + ",5", "label is not one of"),
        (1, "1" + ",0" * 186 + ",0.5", "label is not one of"),
        (2, "0" + ",0" * 187, "segment is empty"),
    ],
)
def test_a_wrong_line_is_refused_by_file_and_number(tmp_path, line, text, why):
    file = tmp_path / "mine.csv"
    write(file, rows([0, 0, 0]))
    lines = file.read_text().splitlines()
    lines[line - 1] = text
    file.write_text("\n".join(lines))
    if why is None:
        assert len(csv.read(file)[0]) == 2  # an empty line is no beat
        return
    with pytest.raises(DataError, match=rf"mine.csv:{line}: .*{why}"):
        csv.read(file)


def test_the_line_number_counts_empty_lines(tmp_path):
    write(tmp_path / "mine.csv", rows([0, 9]))
    first, second = (tmp_path / "mine.csv").read_text().splitlines()
    (tmp_path / "mine.csv").write_text(f"\n{first}\n\n{second}\n")
    with pytest.raises(DataError, match=r"mine\.csv:4: the label"):
        csv.read(tmp_path / "mine.csv")


def test_a_table_of_another_width_is_refused(tmp_path):
    np.savetxt(tmp_path / "mine.csv", np.zeros((4, 141)), delimiter=",")
    with pytest.raises(DataError, match=r"mine\.csv:1: 141 numbers"):
        csv.read(tmp_path / "mine.csv")


def test_an_empty_file_is_refused_in_one_line(tmp_path, recwarn):
    for content in ("", "\n\n"):
        (tmp_path / "mine.csv").write_text(content)
        with pytest.raises(DataError, match=r"mine\.csv is empty$"):
            csv.read(tmp_path / "mine.csv")
    assert not recwarn.list


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "mine.csv").write_bytes(bytes(range(128, 256)) * 40)
    with pytest.raises(DataError, match=r"mine\.csv:1: not 188 numbers"):
        csv.read(tmp_path / "mine.csv")


def test_a_missing_file_is_named_with_where_to_get_it(tmp_path):
    with pytest.raises(DataError, match=r"mitbih_train.csv is missing: .*Kaggle"):
        csv.load(tmp_path)


def test_counts_other_than_the_published_are_a_warning(folder):
    with pytest.warns(UserWarning, match=r"mitbih_train.csv holds N 200, S 1, .* published were N 72471, S 2223"):
        csv.read(folder / csv.TRAIN)


@pytest.mark.filterwarnings("ignore:.*published were:UserWarning")
class TestSplit:
    def test_the_test_file_alone_is_tested(self, folder):
        beats = csv.load(folder)
        parts = csv.split(beats, ["N"])
        assert beats.records[parts.test].tolist() == ["mitbih_test"] * 101
        assert set(beats.records[np.r_[parts.train, parts.calibration]]) == {"mitbih_train"}

    def test_training_and_calibration_are_normal_and_share_nothing(self, folder):
        beats = csv.load(folder)
        parts = csv.split(beats, ["N"])
        both = np.r_[parts.train, parts.calibration]
        assert set(beats.classes[both]) == {"N"}
        assert len(both) == len(set(both.tolist())) == 200
        assert 0 < len(parts.calibration) < 50

    def test_the_seed_decides_the_draw(self, folder):
        beats = csv.load(folder)
        drawn = [csv.split(beats, ["N"], seed=seed).calibration.tolist() for seed in (0, 0, 1)]
        assert drawn[0] == drawn[1] != drawn[2]

    def test_an_unknown_class_is_refused(self, folder):
        with pytest.raises(DataError, match="normal classes must be some of N, S, V, F, Q; got X"):
            csv.split(csv.load(folder), ["X"])

    def test_a_beat_is_known_by_its_file_and_line(self, folder):
        beats = csv.load(folder)
        assert (beats.records[-1], beats.samples[-1]) == ("mitbih_test", 101)


def test_hours_follow_from_the_unpadded_lengths():
    x = rows([0] * 3600, signal=150)[:, :187]  # 1.2 s of signal: beats one second apart
    assert csv.hours(x) == pytest.approx(1.0)
