"""Workers that come and go in good order score no beat twice and miss none."""

import time

import pytest

from tests.integration.traffic import Site, repeats

pytestmark = pytest.mark.kafka


@pytest.mark.parametrize(
    ("per_s", "backlog"),
    [(20, 0), (1000, 0), (200, 6000)],
    ids=["at 20 a second", "at 1000 a second", "with a backlog"],
)
def test_join_restart_and_leave_repeat_less_than_one_in_a_hundred_beats_and_lose_none(
    site: Site, per_s: int, backlog: int
):
    sender = site.sender()
    sender.send(backlog + 20)
    first = site.worker().ready()
    moments = []
    with sender.at_rate(per_s):
        second = site.worker().ready()  # join
        moments.append(time.monotonic())
        time.sleep(1)
        assert first.stop()[0] == 0  # leave
        moments.append(time.monotonic())
        first.start().ready()  # restart
        moments.append(time.monotonic())
        time.sleep(1)
        assert second.stop()[0] == 0
        moments.append(time.monotonic())
        time.sleep(1)
    site.all_committed()
    ids = site.scored()
    assert set(ids) == sender.ids
    again = repeats(ids)
    assert len(again) < 0.01 * len(sender.around(*moments)), f"{len(again)} repeats"
