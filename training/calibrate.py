"""Scaling of both terms and alert thresholds, from held-out normal beats (images) alone; no anomaly label is used."""

import numpy as np

from ecgwatch.bundle import Scale, Threshold
from ecgwatch.errors import BundleError
from ecgwatch.scorer import LEAST, scaled

ALPHA = 0.5  # both terms scaled alike count alike: the one choice that needs no anomalies
RATES_PER_HOUR = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0)


def scale(values: np.ndarray, log: bool = False, most: float | None = None) -> Scale:
    """Return the quantiles of a term on normal points, float[n], that map it to 0 (median) and 1 (upper quartile).

    log: scale its logarithm; most: what the scaled term counts as at most. Raises BundleError where the quantiles are
    the same, or too small for a logarithm.
    """
    median, upper, limit = np.quantile(values, (0.5, 0.75, 0.99))
    if not upper > median:
        raise BundleError(
            f"half of the held-out normal inputs share one value ({median:g}): no scale can be taken from them"
        )
    if log and not median > LEAST:
        raise BundleError(f"the median of the held-out normal inputs, {median:g}, is too small for its logarithm")
    return Scale(float(median), float(upper), float(limit), log, most)


def thresholds(
    nse: np.ndarray, distance: np.ndarray, scales: tuple[Scale, Scale], hours: float
) -> tuple[Threshold, ...]:
    """Return the score that held-out normal beats exceed at each rate.

    nse, distance: float[n]; scales: theirs; hours: of normal rhythm that the beats cover. A rate that the beats are too
    few for (less than one alert in all) is left out.
    """
    scores = np.sort(ALPHA * scaled(nse, scales[0]) + (1 - ALPHA) * scaled(distance, scales[1]))[::-1]
    counts = {rate: round(rate * hours) for rate in RATES_PER_HOUR}
    # strictly above: with the threshold at the (n + 1)-th highest score, n beats are alerts
    return tuple(Threshold(rate, float(scores[n])) for rate, n in counts.items() if 1 <= n < len(scores))
