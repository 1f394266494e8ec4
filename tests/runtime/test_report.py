"""The report of a compilation as plain data, and its schema."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
import report_schema
from jsonschema import Draft202012Validator, ValidationError, validate
from reports import MEASURED, UNMEASURED
from small_model import program

from snncc.backends.chip.chips import demand_json
from snncc.errors import BadInputError
from snncc.runtime.report import Report, TargetReport, decode

SCHEMA = Path(__file__).parents[2] / "docs" / "report.schema.json"
MADE = {
    "measured": MEASURED,
    "unmeasured": UNMEASURED,
    "for a target": replace(
        MEASURED, target=decode(TargetReport, demand_json(program(0), "loihi2"))
    ),
}


@pytest.fixture(params=MADE)
def report(request):
    return MADE[request.param]


def test_the_schema_is_that_of_the_dataclasses():
    assert SCHEMA.read_text(encoding="utf-8") == report_schema.text()
    Draft202012Validator.check_schema(report_schema.schema())


def test_a_report_comes_back_from_its_json_and_fits_the_schema(report):
    data = json.loads(json.dumps(report.to_json()))
    validate(data, report_schema.schema())
    assert data["version"] == 1
    assert Report.from_json(data) == report


def test_files_without_a_version_have_the_keys_of_the_first():
    data = MEASURED.to_json()
    del data["version"]
    assert Report.from_json(data) == MEASURED


@pytest.mark.parametrize("key", [*MEASURED.to_json()])
def test_every_key_is_checked(key):
    data = {**MEASURED.to_json(), key: object()}
    with pytest.raises(BadInputError, match="version" if key == "version" else key):
        Report.from_json(data)
    with pytest.raises(ValidationError):
        validate({**data, key: [{"odd": 1}]}, report_schema.schema())


def test_a_truth_value_is_no_number():
    with pytest.raises(BadInputError, match=r"macs: True where int is expected"):
        Report.from_json({**MEASURED.to_json(), "macs": True})


def test_nothing_edits_a_report():
    with pytest.raises(FrozenInstanceError):
        MEASURED.silent = ("fire",)
