"""What is known of a patient as a message of the baseline topic, and back: nothing is lost, so that scores go on."""

from collections.abc import Mapping

import numpy as np

from ecgwatch.beats import RR_HISTORY, Bedside
from ecgwatch.messages import VERSION, BaselineMessage, LeadBaseline
from ecgwatch.patients import PENDING, Patient

# of what is read from the topic, wider than anything that is saved
LATEST_MS = 253_402_300_799_999
MOST_BEATS = 2**53
LARGEST_MV = 1e12
LARGEST_SHIFT_MS = 10_000.0
LARGEST_DEVIATION = 1e6


def to_message(name: str, leads: Mapping[str, Patient], contract: Bedside) -> BaselineMessage:
    """Return what is known of a patient as it is saved."""
    seen = {lead: patient for lead, patient in leads.items() if patient.count}
    return BaselineMessage(VERSION, name, [_saved(lead, patient, contract) for lead, patient in seen.items()])


def _saved(lead: str, patient: Patient, contract: Bedside) -> LeadBaseline:
    return LeadBaseline(
        lead=lead,
        known=patient.known,
        fs_hz=contract.fs_hz,
        first_ms=patient.first_ms,
        last_ms=patient.last_ms,
        beats=patient.count,
        typical=None if patient.typical is None else _bytes(patient.typical),
        deviation=patient.deviation,
        accepted=patient.accepted,
        left_ms=patient.left_ms,
        stride=patient.stride,
        pending=[_bytes(window) for window in patient.pending],
        shifts=[(int(r_ms), shift) for r_ms, shift in patient.shifts.tolist()],
        r_index=contract.r_index,
    )


def from_message(message: BaselineMessage, contract: Bedside) -> dict[str, Patient]:
    """Return a patient's leads as they were saved; what another contract made, or what is not sound, is left out."""
    found = {}
    for saved in message.leads:
        written = _written(saved)
        window = (contract.fs_hz, contract.r_index)
        fits = (saved.fs_hz, contract.r_index if saved.r_index is None else saved.r_index) == window
        if not fits or any(len(one) != 4 * contract.samples for one in written) or not sound(saved):
            continue
        arrays = [np.frombuffer(one, "<f4") for one in written]
        patient = Patient(
            first_ms=saved.first_ms,
            last_ms=saved.last_ms,
            count=saved.beats,
            typical=arrays.pop() if saved.typical else None,
            deviation=saved.deviation,
            learned=saved.known == "learned",
            accepted=saved.accepted,
            left_ms=saved.left_ms,
            stride=saved.stride,
            pending=arrays,
        )
        patient.shifts = np.array(saved.shifts, np.float64).reshape(-1, 2)
        found[saved.lead] = patient
    return found


def sound(saved: LeadBaseline) -> bool:
    """Whether a lead holds what `to_message` may have written, whatever the contract."""
    written = _written(saved)
    times = [saved.first_ms, saved.last_ms, *([] if saved.left_ms is None else [saved.left_ms])]
    return (
        all(one and len(one) % 4 == 0 and len(one) == len(written[0]) for one in written)
        and all(bool((np.abs(np.frombuffer(one, "<f4")) <= LARGEST_MV).all()) for one in written)  # NaN is not
        and (saved.typical is None) == (saved.known == "none")
        and len(saved.pending) <= PENDING
        and len(saved.shifts) <= RR_HISTORY + 1
        and all(0 <= r_ms <= LATEST_MS and abs(shift) <= LARGEST_SHIFT_MS for r_ms, shift in saved.shifts)
        and all(0 <= ms <= LATEST_MS for ms in times)
        and 1 <= saved.beats <= MOST_BEATS
        and 1 <= saved.stride <= MOST_BEATS
        and 0 <= saved.accepted <= 1
        and 0 <= saved.deviation <= LARGEST_DEVIATION
    )


def _written(saved: LeadBaseline) -> list[bytes]:
    return [*saved.pending, *([] if saved.typical is None else [saved.typical])]


def _bytes(array: np.ndarray) -> bytes:
    return array.astype("<f4").tobytes()
