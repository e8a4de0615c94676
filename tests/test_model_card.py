"""The model card, from a manifest."""

import argparse
from dataclasses import asdict
from typing import Any

import pytest

from ecgwatch import bundle
from ecgwatch.beats import Contract, ImageContract
from ecgwatch.bundle import Manifest, MapSettings, Scale, Threshold
from training import cli, model_card
from training.parameters import Parameters

AUROC = {
    "all": {"nse": 0.454, "distance": 0.564, "score": 0.481, "normal": 36901, "abnormal": 4589},
    "without record 232": {"nse": 0.501, "distance": None, "score": 0.546, "normal": 36583, "abnormal": 3422},
}
ALERTS = [
    {
        "target_per_hour": 10.0,
        "false_alerts_per_hour": 28.99,
        "false_alerts_per_hour_by_record": {"100": 0.0, "105": 261.78, "103": 6.0, "212": None},
        "sensitivity": {"S": 0.0, "V": 0.0123},
    }
]


def manifest(
    figures: dict[str, Any] | None = None, contract: Contract | ImageContract | None = None, /, **parameters: Any
) -> Manifest:
    given = {
        "dataset": "arrhythmia",
        "source": "records",
        "split": "inter-patient",
        "normal": ["N"],
        "keep_mixed_windows": False,
        "rr_window": "past",
        "latent": 12,
        "beta": 0.02,
        "capacity": 20.0,
        "epochs": 46,
        "cooldown": 7,
        "references": 15000,
        "perplexity": 25.0,
        "seed": 3,
        **parameters,
    }
    return Manifest(
        format_version=2,
        name="made",
        created="2026-11-24",
        files={},
        contract=contract or Contract(),
        latent=10,
        alpha=0.5,
        k=1,
        map=MapSettings(20000, 30.0, 5, 54.0),
        nse=Scale(0.076, 0.2, 0.376),
        distance=Scale(2.34, 43.9, 250.99),
        thresholds=() if isinstance(contract, ImageContract) else (Threshold(2.0, 9.3), Threshold(10.0, 8.9)),
        training={
            "parameters": given,
            "records": ["106", "108"],
            "beats": 27551,
            "calibration_records": ["101"],
            "calibration_beats": 13956,
            "calibration_hours": 2.843,
            "images": 48_600,
            "calibration_images": 5_400,
            "export_difference": 7e-7,
            "device": "cpu",
        },
        protocol={"split": given["split"], "text": "how it was split"},
        figures=figures or {},
        versions={"torch": "2.15.0"},
    )


def flat(text: str) -> str:
    """Lines are broken for reading; facts are not."""
    return " ".join(text.split())


def test_it_says_first_that_it_is_no_medical_device():
    assert model_card.render(manifest()).splitlines()[2].startswith("**No medical device.**")


def test_it_says_what_the_model_does_not_see():
    text = flat(model_card.render(manifest()))
    for unseen in ("the beat's own P wave", "how early it came", "amplitudes in millivolts"):
        assert unseen in text.split("It does not see ")[1].split("The heart rate")[0]


def test_it_names_the_people_the_protocol_and_what_normal_means():
    text = flat(model_card.render(manifest()))
    assert "27,551 beats of 2 records (106, 108)" in text
    assert "13,956 normal beats of 1 record (101), 2.84 h" in text
    assert "left and right bundle branch block" in text
    assert "Protocol: how it was split." in text


def test_a_lead_or_a_window_that_differs_is_said():
    text = flat(model_card.render(manifest(None, Contract(leads=("V1", "V2"), rr_window="centred"))))
    assert "One lead: V1 or V2." in text
    assert "cannot be served live" in text


def test_without_figures_it_claims_none():
    text = model_card.render(manifest())
    assert "Not measured yet." in text
    assert "AUROC" not in text


def test_every_auroc_stands_with_its_counts_and_a_single_seed_is_said():
    text = model_card.render(manifest({"auroc": AUROC}))
    assert "| all | 0.454 | 0.564 | 0.481 | 36,901 | 4,589 |" in text
    assert "| without record 232 | 0.501 | - | 0.546 | 36,583 | 3,422 |" in text
    assert "One training, one seed" in text


def test_across_seeds_gives_mean_and_range_and_leaves_out_what_is_missing():
    other = {"all": {**AUROC["all"], "score": 0.501}, "without record 232": AUROC["without record 232"]}
    across = model_card.across_seeds({1: AUROC, 0: other})
    assert across["seeds"] == [0, 1]
    assert across["auroc"]["all"]["score"] == {"mean": 0.491, "low": 0.481, "high": 0.501}
    assert "distance" not in across["auroc"]["without record 232"]
    text = model_card.render(manifest({"auroc": AUROC, "seeds": across}))
    assert "0.491 (0.481-0.501)" in text
    assert "Mean of 2 trainings" in text


def test_the_figures_of_one_seed_are_no_mean():
    text = model_card.render(manifest({"auroc": AUROC, "seeds": model_card.across_seeds({0: AUROC})}))
    assert "| all | 0.454 | 0.564 | 0.481 | 36,901 | 4,589 |" in text
    assert "One training, one seed" in text and "Mean of" not in text


@pytest.mark.parametrize(
    ("floor", "verdict"), [(0.871, "**The score's 0.481 over all test beats is below"), (0.4, "above")]
)
def test_the_floor_stands_beside_the_figures_with_a_verdict(floor, verdict):
    text = model_card.render(manifest({"auroc": AUROC, "floor": {"prematurity": {"all": 0.3}, "both": {"all": floor}}}))
    assert f"| both | {floor:.3f} |" in text
    assert verdict in text


def test_the_verdict_judges_the_mean_over_seeds():
    seeds = {"seeds": [0, 1], "auroc": {"all": {"score": {"mean": 0.7, "low": 0.481, "high": 0.919}}}}
    text = model_card.render(manifest({"auroc": AUROC, "seeds": seeds, "floor": {"both": {"all": 0.6}}}))
    assert "The score's 0.700 over all test beats is above the floor's 0.600" in text


def test_realised_alert_rates_stand_beside_their_target():
    text = model_card.render(manifest({"auroc": AUROC, "per_record": {"105": AUROC["all"]}, "alerts": ALERTS}))
    assert "| 10 | 29.0 | 0.0 / 6.0 / 261.8 | 0 % | 1 % |" in text
    assert "| 105 | 0.454 | 0.564 | 0.481 | 36,901 | 4,589 | 261.8 |" in text
    assert "of 10 per hour it finds 0.0 % of class S, 1.2 % of class V, at 29.0 false alerts per hour.**" in text


def test_rates_that_were_not_measured_are_said_to_be_so():
    assert "were not measured" in model_card.render(manifest({"auroc": AUROC}))


def test_a_bundle_split_by_beat_warns_of_people_it_has_not_seen():
    by_beat, between = (model_card.render(manifest(split=split)) for split in ("by-beat", "inter-patient"))
    assert "**People it has not seen.**" in by_beat
    assert "**People it has not seen.**" not in between
    assert "record 232 (sick sinus" in between


def test_another_protocol_brings_its_own_words_and_figures():
    other = {"text": "the other way", "auroc": {"all": {**AUROC["all"], "score": 0.957}}}
    text = model_card.render(manifest({"auroc": AUROC, "other": [other]}))
    assert text.index("**Another protocol**: the other way.") < text.index("0.957")


OF_IMAGES = {"dataset": "fashion-mnist", "source": "idx", "split": "by-image", "normal": ["0", "7"]}


def test_the_card_of_images_names_counts_classes_and_figures_and_nothing_medical():
    figures = {"auroc": {"all": AUROC["all"]}}
    text = flat(model_card.render(manifest(figures, ImageContract(), **OF_IMAGES)))
    assert "Normal classes: 0, 7; every other one is anomalous." in text
    assert "48,600 images" in text and "5,400 further normal images" in text
    assert "| test images | NSE | D | S | normal | abnormal |" in text
    assert "| all | 0.454 | 0.564 | 0.481 | 36,901 | 4,589 |" in text
    assert "arXiv:1708.07747" in text
    for word in ("medical", "patient", "MIT-BIH", "beat "):
        assert word not in text


def test_the_card_of_images_without_figures_claims_none():
    assert "Not measured yet." in model_card.render(manifest(None, ImageContract(), **OF_IMAGES))


BY_BEAT = {"split": "by-beat", "keep_mixed_windows": True, "rr_window": "centred", "normal": ["N", "S"]}


@pytest.mark.parametrize(
    ("parameters", "contract"),
    [
        ({}, None),
        (BY_BEAT, None),
        ({**BY_BEAT, "source": "csv"}, None),
        ({"contract": "segment", "encoder": "lstm"}, None),
        (OF_IMAGES, ImageContract()),
        ({**OF_IMAGES, "dataset": "cifar-10", "source": "bin"}, ImageContract(32, 32, 3)),
    ],
    ids=["default", "by beat", "csv", "LSTM", "images", "colours"],
)
def test_the_command_it_names_is_one_that_the_command_line_takes(parameters, contract):
    wanted = named(model_card.render(manifest(None, contract, **parameters)))
    given = manifest(**parameters).training["parameters"]
    assert {name: getattr(wanted, name) for name in given} == {**given, "normal": tuple(given["normal"])}


@pytest.mark.parametrize(
    "command",
    [
        "",
        "--folds 0",
        "--folds 3",
        "--contract segment",
        "--contract segment --folds 4",
        "--contract segment --encoder cnn",
        "--split by-beat",
        "--split by-beat --contract bedside",
        "--split by-beat --encoder lstm --normal N S",
    ],
)
def test_the_command_it_names_makes_the_same_model_again(command):
    wanted = taken(f"--dataset arrhythmia {command}".split())
    text = model_card.render(manifest(None, **(asdict(wanted) | {"normal": list(wanted.normal)})))
    assert named(text) == wanted


def named(card: str) -> Parameters:
    """Return what the command of a card trains with."""
    return taken(next(line for line in card.splitlines() if "ecgwatch train" in line).split()[2:])


def taken(words: list[str]) -> Parameters:
    """Return what `ecgwatch train` makes of its arguments."""
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    return cli.parameters(parser.parse_args(words))


def test_the_card_of_the_default_says_what_its_terms_divide_by_and_are_limited_to():
    shipped = bundle.load("default")
    card = " ".join(shipped.card.split())
    assert "divided by twice the energy of the typical beat" in card
    assert f"scaled D counts as {shipped.manifest.distance.most:g} at most" in card
