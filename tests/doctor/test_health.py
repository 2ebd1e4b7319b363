"""A deployment that is well, and what is left out where an address is not there."""

from __future__ import annotations

from tests.doctor.support import Patient, codes, examine


def test_a_healthy_deployment_is_told_so(patient: Patient) -> None:
    found = examine(patient)
    assert codes(found, "warning", "critical") == {}, codes(found, "warning", "critical")
    assert found["worst"] == "note"
    # What the look itself sets for its queries is not taken for the server's.
    assert "postgresql.jit" in codes(found, "note")
    assert {check["check"] for check in found["checks"] if check["status"] == "skipped"} == {"logins"}
