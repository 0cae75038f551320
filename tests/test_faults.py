"""The table of faults fits the sources; `python -m tests.faults` puts them in."""

from pathlib import Path

import pytest

from tests.faults.table import FAULTS, Fault

ROOT = Path(__file__).parent.parent


def test_there_are_twenty_with_names_of_their_own() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 20


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_can_be_put_in(fault: Fault) -> None:
    for edit in fault.edits:
        text = (ROOT / edit.file).read_text("utf-8")
        assert text.count(edit.old) == 1, f"{edit.file}: {edit.old!r}"
        assert edit.new != edit.old
    for name in fault.tests.split():
        assert (ROOT / "tests" / name).is_file()
    for stem in fault.modules:
        assert (ROOT / f"convcore/kernels/{stem}.pyx").is_file()


def test_the_page_names_every_fault() -> None:
    page = (ROOT / "docs/reliability.md").read_text("utf-8")
    for fault in FAULTS:
        assert f"| {fault.name} | {fault.kind} |" in page
