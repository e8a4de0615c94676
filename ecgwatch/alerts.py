"""Alert rules: which scored beat is an alert, and why; pure."""

from ecgwatch.beats import Bedside, pauses_ms
from ecgwatch.bundle import Bundle
from ecgwatch.messages import VERSION, Alert, Beat, Known


def alert(
    beat: Beat, nse: float, distance: float, score: float, baseline: Known | None, threshold: float, bundle: Bundle
) -> Alert | None:
    """Return the alert for a beat whose score is above the threshold, else None."""
    if score <= threshold:
        return None
    return Alert(
        version=VERSION,
        id=beat.id,
        patient=beat.patient,
        lead=beat.lead,
        r_time_ms=beat.r_time_ms,
        score=score,
        threshold=threshold,
        nse=nse,
        distance=distance,
        reason=reason(nse, distance, bundle) + pauses(beat, bundle),
        baseline=baseline,
        model=bundle.sha256,
    )


def pauses(beat: Beat, bundle: Bundle) -> str:
    """Name the pauses that raise a score of the bedside contract; empty where there are none."""
    if not isinstance(bundle.manifest.contract, Bedside) or not len(found := pauses_ms(beat.rr_ms)):
        return ""
    return f"; pauses among its RR intervals: {len(found)}, the longest of {found.max() / 1000:.1f} s"


def reason(nse: float, distance: float, bundle: Bundle) -> str:
    """Say which term is beyond what 99 of 100 held-out normal beats show, with both numbers."""
    limits = bundle.manifest
    parts = []
    if distance > limits.distance.limit:
        parts.append(f"map distance {distance:.2f} (99 % of normal beats: up to {limits.distance.limit:.2f})")
    if nse > limits.nse.limit:
        parts.append(f"reconstruction error {nse:.3f} (99 % of normal beats: up to {limits.nse.limit:.3f})")
    return "; ".join(parts) or (
        f"map distance {distance:.2f} and reconstruction error {nse:.3f} together, each within 99 % of normal beats"
    )
