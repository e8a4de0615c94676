"""The model card: what a cardiologist should know of a bundle, in Markdown, made from its manifest alone.

Of a bundle of images, a short one: what was measured, and how.

What it reads of `manifest.figures`; parts that are absent are left out, or said to be absent:
- auroc: {group of beats: {nse, distance, score, normal, abnormal}}; the first group is all test beats
- per_record: {record: the same}
- alerts: [{target_per_hour, false_alerts_per_hour, false_alerts_per_hour_by_record, sensitivity: {class: share}}]
- seeds: what `across_seeds` returns, of the same protocol
- floor: what `training.floor.auroc_table` returns (between patients only)
- other: [{text: protocol, auroc, seeds}], the same model trained and tested under other protocols
"""

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, median
from typing import Any

from ecgwatch import config
from ecgwatch.beats import Bedside, ImageContract, of_heartbeats
from ecgwatch.bundle import Manifest
from training.parameters import MOST_DRAWN, NUMBERS, defaults
from training.text import markdown_table

TERMS = {"nse": "NSE", "distance": "D", "score": "S"}
CLASSES = {
    "N": "N (normal beats; by AAMI also left and right bundle branch block, atrial and nodal escape beats)",
    "S": "S (supraventricular ectopic beats)",
    "V": "V (ventricular ectopic beats and escapes)",
    "F": "F (fusion of ventricular and normal)",
    "Q": "Q (paced and unclassified beats)",
}
IMAGES = {
    "mnist": "MNIST. LeCun Y, Bottou L, Bengio Y, Haffner P. Proc. IEEE 86(11):2278-2324 (1998).",
    "cifar-10": "CIFAR-10. Krizhevsky A. Learning multiple layers of features from tiny images (2009).",
    "small-norb": "Small-NORB. LeCun Y, Huang FJ, Bottou L. CVPR (2004).",
    "fashion-mnist": "Fashion-MNIST (MIT License). Xiao H, Rasul K, Vollgraf R. arXiv:1708.07747 (2017).",
}
_BEDSIDE_ONLY = ("filters", "denoise")  # options that other contracts do not have


_NEXT_BEAT = "**The next beat.** Most windows hold the next R peak: an abnormal beat can make the one before it alert."


def render(manifest: Manifest) -> str:
    """Return the card of a bundle."""
    if isinstance(manifest.contract, ImageContract):
        return _of_images(manifest, manifest.contract)
    parts = [
        f"# Model card: {manifest.name}",
        "**No medical device.** Research software. Nobody's care may depend on it: it misses events and raises false "
        "alerts, at the rates below.",
        _purpose(manifest),
        _input(manifest),
        _people(manifest),
        _scoring(manifest),
        _figures(manifest),
        _alerts(manifest),
        _weaknesses(manifest),
        _sources(manifest),
    ]
    return "\n\n".join(parts) + "\n"


def _of_images(manifest: Manifest, contract: ImageContract) -> str:
    training = manifest.training
    parameters = training["parameters"]
    scale = "black 0, white 1" if contract.channels == 1 else "each colour from 0 to 1"
    parts = [
        f"# Model card: {manifest.name}",
        f"""It tells how unlike its normal classes an image of {parameters["dataset"]} looks ({contract.height} x
{contract.width} pixels, {scale}). It repeats an experiment of the paper, to be compared with; the worker
takes heartbeats, and refuses it.

- Normal classes: {", ".join(parameters["normal"])}; every other one is anomalous.
- Training and reference map: {training["images"]:,} images, {manifest.map.references:,} of them in the map.
- Scaling of both terms: {training["calibration_images"]:,} further normal images.
- Score: S = {manifest.alpha:g} NSE + {1 - manifest.alpha:g} D, both scaled so that these have their median at 0 and
  their upper quartile at 1. The paper searched the weight; here it was fixed beforehand, and no anomaly chose it.
- There is no alert threshold: a rate per hour means nothing for images.""",
        "## How well it tells anomalous from normal",
        "AUROC: how often an anomalous image scores above a normal one; 0.5 is chance. "
        f"Protocol: {_sentence(manifest.protocol['text'])}",
    ]
    if manifest.figures:
        parts.append(_auroc(manifest.figures["auroc"], manifest.figures.get("seeds"), "images"))
    else:
        parts.append("Not measured yet.")
    parts.append(_made(manifest))
    parts.append(f"Data: {IMAGES[parameters['dataset']]} This bundle: Apache License 2.0.")
    return "\n\n".join(parts) + "\n"


def across_seeds(aurocs: Mapping[int, Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Return mean, lowest and highest AUROC of each group and term over runs that differ in the seed alone.

    aurocs: the `auroc` figures by seed. A term that is None in one of them is left out.
    """
    first = next(iter(aurocs.values()))
    return {
        "seeds": sorted(aurocs),
        "auroc": {
            group: {
                term: {
                    "mean": round(mean(values), 4),
                    "low": min(values),
                    "high": max(values),
                }
                for term in TERMS
                if None not in (values := [one[group][term] for one in aurocs.values()])
            }
            for group in first
        },
    }


def _purpose(manifest: Manifest) -> str:
    rhythm = "it knows\nnothing of rhythm: each beat is judged alone."
    if isinstance(manifest.contract, Bedside):
        rhythm = (
            "of\nrhythm it knows how early a beat came: each is judged alone, relative to its patient's typical one."
        )
    return f"""## What it is for

It tells how unlike normal beats a single heartbeat looks, given its R peak. It names no arrhythmia, and {rhythm}
It was made to be studied, and to be compared with."""


def _input(manifest: Manifest) -> str:
    contract = of_heartbeats(manifest.contract)
    leads = f"One lead: {' or '.join(contract.leads)}." if contract.leads else "One lead, whichever the record has."
    if isinstance(contract, Bedside):
        return _bedside(contract, leads)
    window = "the last 10 s"
    if contract.rr_window == "centred":
        window = "10 s around the beat (5 s of them ahead: it cannot be served live)"
    return f"""## What the model sees of a beat

- {leads} The signal from the R peak on, for {contract.rr_factor:g} x the median RR interval of {window}, at most
  {contract.length / contract.fs_hz:.2f} s, at {contract.fs_hz:g} Hz; it usually ends after the next R peak.
- Scaled so that its lowest value is 0 and its highest 1, then padded with zeros to {contract.length} samples.

So it sees the end of the QRS complex, ST segment and T wave by their shape, and most often the P wave and R peak of the
**next** beat. It does not see the beat's own P wave, nor the onset of its QRS complex, nor how early it came
(prematurity), nor amplitudes in millivolts. The heart rate shows only as the length of what is not padding."""


def _bedside(contract: Bedside, leads: str) -> str:
    return f"""## What the model sees of a beat

- {leads} The signal from {contract.before_s:.2f} s before the R peak (the P wave) to {contract.after_s:.2f} s after it,
  at {contract.fs_hz:g} Hz, without its median, moved by at most {1000 * contract.align_s:.0f} ms to where it lies
  nearest to the patient's typical beat; without the parabola that its difference from that holds (baseline wander).
- That **typical beat**, learned without labels from the first {contract.learn_s / 60:g} minutes, and followed slowly.
  Deviations from it count in proportion to its amplitude, and the less the more this patient's beats deviate as a rule.
- How early the beat came: its RR interval against the median of the last {contract.recent_rr}, in proportion to how
  irregular the rhythm is. Long intervals count little.
- How much of the recent time passed in pauses (RR intervals of 2 s or more): the one number that is not relative.

A patient whose ordinary beats are abnormal (a bundle branch block, atrial fibrillation, most beats ectopic) is judged
relative to them: the score tells change, not illness. In the first {contract.learn_s / 60:g} minutes the typical beat
is provisional, and of the first seven beats only the RR interval counts; messages say so (`baseline`)."""


def _people(manifest: Manifest) -> str:
    training = manifest.training
    normal = tuple(training["parameters"]["normal"])
    classes = "; ".join(CLASSES[kind] for kind in normal)
    mixed = (
        "Windows that also hold an abnormal beat were used too (an option, for parity with the paper)."
        if training["parameters"]["keep_mixed_windows"]
        else "Normal beats whose window also holds an abnormal beat were left out."
    )
    return f"""## On whom it was trained

MIT-BIH Arrhythmia Database: 48 half-hour ambulatory recordings of 47 people, Boston, 1975-1979, two cardiologists'
annotations; 25 men of 32 to 89 years, 22 women of 23 to 89; chosen for their arrhythmias, not as a sample of anybody.

- Training and reference map: {training["beats"]:,} beats of {_records(training["records"])}.
- Scaling and thresholds: {training["calibration_beats"]:,} normal beats of {_records(training["calibration_records"])},
  {training["calibration_hours"]:.2f} h of normal rhythm.{_folds(training["parameters"])}
- "Normal" means: {classes}. {mixed}
- Atrial fibrillation is a rhythm, not a class of beats: its conducted beats count as normal, here and in the figures.

Protocol: {_sentence(manifest.protocol["text"])}"""


def _scoring(manifest: Manifest) -> str:
    terms = ((manifest.alpha, manifest.nse, "NSE"), (1 - manifest.alpha, manifest.distance, "D"))
    missed = "NSE is what the drawing misses, divided by the beat's energy"
    if isinstance(manifest.contract, Bedside):
        missed = (
            "NSE is what the drawing misses, divided by twice the energy of the typical beat; of what deviates from it "
            f"no more is drawn than {MOST_DRAWN:g} of that energy"
        )
    most = f"; scaled D counts as {manifest.distance.most:g} at most" if manifest.distance.most else ""
    joined = " + ".join(f"{weight:g} {'log ' * scale.log}{term}" for weight, scale, term in terms)
    return f"""## How it scores

1. **NSE**: a neural network (beta-VAE, temporal convolutions) squeezes the beat into {manifest.latent} numbers and
   draws it anew; {missed}. Of the held-out normal beats half
   stay below {manifest.nse.median:.3f} and 99 of 100 below {manifest.nse.limit:.3f}.
2. **D**: those numbers are placed in a map of {manifest.map.references:,} normal beats (t-SNE); D is the distance to
   the nearest of them. Of the held-out normal beats half stay below {manifest.distance.median:.2f} and 99 of 100
   below {manifest.distance.limit:.2f}.
3. **S = {joined}**, both scaled so that the held-out normal beats have
   their median at 0 and their upper quartile at 1{most}. The weight was fixed beforehand: no abnormal beat chose it.
4. A beat whose S is above the threshold is an alert. There is no memory: ten abnormal beats are ten alerts."""


def _figures(manifest: Manifest) -> str:
    figures = manifest.figures
    if not figures:
        return "## How well it tells abnormal from normal\n\nNot measured yet."
    parts = [
        "## How well it tells abnormal from normal",
        "AUROC: how often an abnormal beat scores above a normal one; 0.5 is chance. "
        f"Protocol: {_sentence(manifest.protocol['text'])}",
        _auroc(figures["auroc"], figures.get("seeds")),
    ]
    if floor := figures.get("floor"):
        columns = list(next(iter(floor.values())))
        rows = [[name, *(_number(row.get(column)) for column in columns)] for name, row in floor.items()]
        parts.append(
            "**The floor.** Two numbers that need no training (training/floor.py): how early the beat came, and its "
            "distance to the patient's own typical beat in the first 5 minutes; N against the rest, same patients and "
            "minutes. A learned score that stays below them adds nothing."
        )
        parts.append(_table(["floor", *columns], rows))
        parts.append(_verdict(figures, floor))
    for other in figures.get("other", ()):
        parts += [f"**Another protocol**: {_sentence(other['text'])}", _auroc(other["auroc"], other.get("seeds"))]
    return "\n\n".join(parts)


def _auroc(auroc: Mapping[str, Mapping[str, Any]], seeds: Mapping[str, Any] | None, inputs: str = "beats") -> str:
    """Print each group's AUROC by term; with several seeds their mean, and lowest to highest in brackets."""
    several = seeds if seeds and len(seeds["seeds"]) > 1 else None
    rows = []
    for group, values in auroc.items():
        row = [group]
        for term in TERMS:
            spread = (several or {}).get("auroc", {}).get(group, {}).get(term)
            row.append(
                f"{spread['mean']:.3f} ({spread['low']:.3f}-{spread['high']:.3f})" if spread else _number(values[term])
            )
        rows.append([*row, f"{values['normal']:,}", f"{values['abnormal']:,}"])
    said = (
        f"Mean of {len(several['seeds'])} trainings that differ in the seed alone, lowest to highest in brackets."
        if several
        else "One training, one seed: differences in the second decimal mean nothing."
    )
    return _table([f"test {inputs}", *TERMS.values(), "normal", "abnormal"], rows) + f"\n\n{said}"


def _verdict(figures: Mapping[str, Any], floor: Mapping[str, Mapping[str, float]]) -> str:
    """Say in words whether the score over all test beats reaches the floor."""
    group, values = next(iter(figures["auroc"].items()))
    score = figures["seeds"]["auroc"][group]["score"]["mean"] if "seeds" in figures else values["score"]
    best, height = max(((name, row["all"]) for name, row in floor.items()), key=lambda pair: pair[1])
    if score > height:
        return f"The score's {score:.3f} over all test beats is above the floor's {height:.3f} ({best})."
    return f"**The score's {score:.3f} over all test beats is below the floor's {height:.3f} ({best}).**"


def _folds(parameters: Mapping[str, Any]) -> str:
    folds = parameters.get("folds")  # bundles made before have none
    return f" A model of the other {folds - 1} of {folds} folds of these patients judged each." if folds else ""


def _alerts(manifest: Manifest) -> str:
    rates = [f"{threshold.false_alerts_per_hour:g}" for threshold in manifest.thresholds]
    parts = [
        "## Alerts: what was asked for, what came",
        f"A threshold is chosen as a rate of false alerts per hour of normal rhythm: {', '.join(rates)}. It is set on "
        f"the held-out normal beats named above ({manifest.training['calibration_hours']:.1f} h: the lowest rates rest "
        "on a handful of beats).",
    ]
    realised = manifest.figures.get("alerts")
    if not realised:
        parts.append("The rates that come true on other people were not measured in this protocol.")
        return "\n\n".join(parts)
    kinds = list(realised[0]["sensitivity"])
    rows = []
    for row in realised:
        by_record = [rate for rate in row["false_alerts_per_hour_by_record"].values() if rate is not None]
        spread = f"{min(by_record):.1f} / {median(by_record):.1f} / {max(by_record):.1f}"
        found = (f"{100 * row['sensitivity'][kind]:.0f} %" for kind in kinds)
        rows.append([f"{row['target_per_hour']:g}", f"{row['false_alerts_per_hour']:.1f}", spread, *found])
    parts.append("On the test patients (false alerts per hour of normal rhythm; share of abnormal beats that alert):")
    parts.append(
        _table(["target", "realised", "lowest / median / highest patient", *(f"found of {k}" for k in kinds)], rows)
    )
    chosen = config.Alerts().false_alerts_per_hour
    if per_record := next((row for row in realised if row["target_per_hour"] == chosen), None):
        shares = ", ".join(f"{100 * per_record['sensitivity'][kind]:.1f} % of class {kind}" for kind in kinds)
        parts.append(
            f"**At the default target of {chosen:g} per hour it finds {shares}, at "
            f"{per_record['false_alerts_per_hour']:.1f} false alerts per hour.** By patient:"
        )
        parts.append(_by_record(manifest, per_record))
    return "\n\n".join(parts)


def _by_record(manifest: Manifest, realised: Mapping[str, Any]) -> str:
    rows = []
    for record, values in manifest.figures.get("per_record", {}).items():
        rate = realised["false_alerts_per_hour_by_record"].get(record)
        counts = (f"{values['normal']:,}", f"{values['abnormal']:,}")
        rows.append([record, *(_number(values[t]) for t in TERMS), *counts, "-" if rate is None else f"{rate:.1f}"])
    columns = [f"AUROC {name}" for name in TERMS.values()]
    return _table(["record", *columns, "normal", "abnormal", "false alerts per hour"], rows)


def _weaknesses(manifest: Manifest) -> str:
    between_patients = manifest.protocol["split"] == "inter-patient"
    bedside = isinstance(manifest.contract, Bedside)
    if bedside:
        parts = [
            "**A patient whose typical beat is ill.** The score tells what departs from the patient's own typical "
            "beat; where most beats are ectopic, or conduction changed before the watch began, that is taken for "
            "normal (record 232: most of its beats are supraventricular; within it the score is no better than "
            "chance, and what raises it above other patients is its pauses of 2 s and more).",
            "**A change that stays** (a new bundle branch block, another electrode) alerts beat after beat for about "
            "five minutes, and is the new typical beat then.",
        ]
    else:
        parts = [
            "**What differs between people is larger than what differs between a normal and an ectopic beat of one "
            "person.** The model does not know its patient: one person with an unusual T wave or axis alerts all day, "
            "another one's ventricular beats look like somebody's normal beats."
        ]
    if not between_patients:
        parts.append(
            "**People it has not seen.** The figures above share patients between training and test; on other people "
            "they are far lower. A bundle that is to watch people belongs to the inter-patient split."
        )
    parts.append(
        "**Supraventricular ectopic beats** look like normal beats and come early; "
        + ("one that comes hardly early is missed." if bedside else "the model does not see earliness.")
        + (
            " Most of those in the test belong to record 232 (sick sinus syndrome), whose normal beats are the rare "
            "ones; figures are given with and without it."
            if between_patients
            else ""
        )
    )
    parts.append(
        "**Atrial fibrillation, heart block**: disturbances of rhythm with normal beats are not seen"
        + (", but for pauses of 2 s or more, which raise the scores of the 40 beats after them." if bedside else ".")
    )
    if "Q" not in manifest.training["parameters"]["normal"]:
        parts.append("**Paced beats** were never learned: whether they alert is a matter of their shape.")
    parts += [
        "**Noise, electrode motion, lost contact.** A disturbed normal beat is badly drawn, and alerts. Nothing tests "
        "the signal's quality, but a flat line is refused.",
        *([] if bedside else [_NEXT_BEAT]),
        "**The R peak** is taken as given, here as annotated by cardiologists. One that a detector puts elsewhere "
        "changes the window, and the score.",
    ]
    return "## Known weaknesses\n\n" + "\n".join(f"- {part}" for part in parts)


def _sources(manifest: Manifest) -> str:
    return f"""{_made(manifest)} Protocol between patients: de Chazal,
O'Dwyer, Reilly, IEEE Trans. Biomed. Eng. 51 (2004). Classes and the 5 minutes left out: ANSI/AAMI EC57.

Data: MIT-BIH Arrhythmia Database 1.0.0, Open Data Commons Attribution License. Moody GB, Mark RG. The impact of the
MIT-BIH Arrhythmia Database. IEEE Eng in Med and Biol 20(3):45-50 (2001). Goldberger A, et al. PhysioBank,
PhysioToolkit, and PhysioNet. Circulation 101(23):e215-e220 (2000). This bundle: Apache License 2.0."""


def _made(manifest: Manifest) -> str:
    """Say how to make the bundle again, and by what method."""
    parameters = manifest.training["parameters"]
    if parameters["source"] == "csv":  # what else the card names follows from the files
        options = ["--csv FOLDER"]
    elif parameters["split"] == "by-image":
        options = []
    else:
        options = [f"--split {parameters['split']}"]
        options += ["--keep-mixed-windows"] if parameters["keep_mixed_windows"] else []
        options += [f"--rr-window {parameters['rr_window']}"] if parameters["rr_window"] != "past" else []
    contract = parameters.get("contract", "segment")  # older bundles have fewer keys, here and below
    dataset, split = parameters["dataset"], parameters["split"]
    if dataset == "arrhythmia" and contract != defaults(dataset, split).contract:
        options.append(f"--contract {contract}")
    if (folds := parameters.get("folds", 0)) != defaults(dataset, split, contract).folds:
        options.append(f"--folds {folds}")
    if (encoder := parameters.get("encoder", "tcn")) != "tcn":
        options.append(f"--encoder {encoder}")
    options.append(f"--normal {' '.join(parameters['normal'])}")
    bedside = contract == "bedside"
    options += [
        f"--{name} {parameters[name]:g}"
        for name in NUMBERS
        if name in parameters and (bedside or name not in _BEDSIDE_ONLY)
    ]
    if (precision := parameters.get("precision", "float32")) != "float32":
        options.append(f"--precision {precision}")
    options += [f"--{name.replace('_', '-')}" for name in ("unit_latents", "log_terms") if parameters.get(name)]
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    difference = f"{manifest.training['export_difference']:.1g} on real {manifest.contract.inputs}"
    return f"""## Where it comes from

Made {manifest.created} by (on {manifest.training["device"]}):

    ecgwatch train --dataset {dataset} {" ".join(options)}

The exported model differs from the trained one by at most {difference}.
Versions: {versions}.

Method: *Anomaly Detection Based on Unsupervised Disentangled Representation Learning in Combination with Manifold
Learning* (AnoDM; ICLR 2020 submission), with a frozen map instead of a joint one."""


def _records(names: Sequence[str]) -> str:
    return f"{len(names)} {'record' if len(names) == 1 else 'records'} ({', '.join(names)})"


def _sentence(text: str) -> str:
    return text if text.endswith(".") else text + "."


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return markdown_table(lines)
