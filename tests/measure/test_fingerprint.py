"""A profile of another machine is refused, and the message names what differs."""

from __future__ import annotations

import pytest
from bundle_samples import profile as paper_profile

from automc.errors import StaleCalibrationError
from automc.measure.fingerprint import cache_bytes, check_fingerprint, host_fingerprint


def test_this_machine_is_the_same_machine_twice() -> None:
    here = host_fingerprint()
    assert here == host_fingerprint()
    assert here.runtime == "onnxruntime"
    assert here.cores >= 1
    assert here.cpu
    check_fingerprint(paper_profile().model_copy(update={"fingerprint": here}))


def test_every_difference_is_named_with_the_next_command() -> None:
    other = host_fingerprint().model_copy(update={"cpu": "abacus", "runtime_version": "0.1"})
    stale = paper_profile().model_copy(update={"name": "host", "fingerprint": other})
    with pytest.raises(StaleCalibrationError) as caught:
        check_fingerprint(stale)
    assert "cpu was 'abacus'" in caught.value.message
    assert "runtime_version was '0.1'" in caught.value.message
    assert "cores" not in caught.value.message
    assert caught.value.next_step == "automc profile calibrate host"


def test_a_core_has_a_cache_of_its_own() -> None:
    assert 2**14 <= cache_bytes() <= 2**28
