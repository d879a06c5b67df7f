from __future__ import annotations

import numpy as np
import pytest

from landbridge.deploy.hardware.mcu_clock import WINDOW, WRAP, BoardClock

AGO = 1234.5  # s: when the board's clock was at 0, on the host's


def heard(sent: list[float], waited: list[float], drift: float = 0.0) -> list[float]:
    """When the host says that frames of these times were sent, which lay in its port for so long."""
    clock = BoardClock()
    stamps = [round(1e6 * (at - AGO) * (1 + drift)) % WRAP for at in sent]
    return [clock(stamp, at + wait) for stamp, at, wait in zip(stamps, sent, waited, strict=True)]


def test_what_a_frame_waits_for_the_host_is_no_part_of_its_time() -> None:
    """The host looks every 20 ms; telemetry every 2.003 ms, so that the newest frame is from 0 to 2 ms old."""
    looks = AGO + 0.02 * np.arange(1, 500)
    sent = AGO + 0.002003 * np.floor((looks - AGO) / 0.002003)
    found = np.array(heard(sent.tolist(), (looks - sent).tolist()))
    settled = looks > looks[0] + 1.4  # by when the phase has gone round once
    assert np.ptp(looks - sent) > 0.0019
    assert np.abs(found - sent)[settled].max() < 5e-5


def test_a_clock_that_wraps_goes_on() -> None:
    sent = [AGO + WRAP * 1e-6 + 0.1 * i for i in range(-5, 5)]
    assert heard(sent, [0.0] * 10) == pytest.approx(sent, abs=2e-6)


def test_a_frame_out_of_order_is_older_and_not_71_minutes_younger() -> None:
    sent = [AGO + 10.0, AGO + 10.01, AGO + 10.0, AGO + 10.02]
    assert heard(sent, [0.0, 0.0, 0.01, 0.0]) == pytest.approx(sent, abs=2e-6)


@pytest.mark.parametrize("drift", [1e-4, -1e-4])
def test_crystals_that_differ_are_followed(drift: float) -> None:
    """For an hour, at a difference that makes it a third of a second."""
    sent = [AGO + 0.1 * i for i in range(36_000)]
    found = np.array(heard(sent, [0.0] * len(sent), drift))
    assert np.abs(found - sent).max() < 1.1e-4 * WINDOW
    assert (found <= sent).all()


def test_old_frames_of_a_port_that_was_full_are_old() -> None:
    sent = [AGO + 0.02 * i for i in range(100)]
    assert heard([*sent, sent[-1] + 0.01], [0.0] * 100 + [0.5])[-1] == pytest.approx(sent[-1] + 0.01, abs=1e-5)


def test_a_port_that_filled_during_a_long_pause_gives_out_old_frames() -> None:
    """A port keeps the oldest bytes that it is sent: 140 ms of them, read 3 s later, are not of now."""
    sent = [AGO + 0.002 * i for i in range(2070)]
    read_at = sent[2000] + WINDOW + 1
    waited = [0.001] * 2000 + [read_at - at for at in sent[2000:]]
    assert heard(sent, waited)[2000:] == pytest.approx([at + 0.001 for at in sent[2000:]], abs=1e-5)
