"""The named layers, their spellings and their cases."""

import json
import re
from math import prod

import numpy as np
import pytest

from benchmarks import problems
from benchmarks.case import data
from benchmarks.problems import suite, suites
from benchmarks.rows import named, parse, spell
from benchmarks.worker import case_from_json
from convcore.problem import ConvProblem, PoolProblem


@pytest.mark.parametrize("name", suites())
def test_every_row_of_a_suite_is_a_legal_problem_whose_spelling_reads_back(name):
    rows = suite(name)
    assert rows
    for row in rows:
        assert parse(row.op, row.spelling) == row.problem
        for direction in row.directions:
            case = row.case(direction, "float32")
            assert case_from_json(json.loads(json.dumps(case.as_json()))) == case
            assert row.family


def test_names_within_a_suite_are_unique():
    for name in suites():
        keys = [(row.name, row.op) for row in suite(name)]
        assert len(set(keys)) == len(keys)


def test_core_has_forty_layers_of_about_three_gigaflop():
    rows = suite("core")
    assert len(rows) == 40
    assert rows[0].name == "resnet_50/conv1"
    assert rows[0].spelling == "n13g1ic3ih224oc64kh7sh2ph3"
    assert all(2 * row.problem.macs < 11e9 for row in rows)


def test_every_source_of_the_layers_names_its_licence():
    sources = problems._layers()["meta"]["sources"]
    assert len(sources) == 4
    assert all(re.search("Apache-2.0|MIT|BSD", source) for source in sources)


def test_extra_has_twenty_rows_of_other_suites():
    assert len(suite("extra")) == 20
    assert not {r.name for r in suite("extra")} & {r.name for r in suite("core")}


def test_an_unknown_suite_is_named():
    with pytest.raises(
        ValueError, match=r"suite: name must be one of core, .*got 'cor'"
    ):
        suite("cor")


@pytest.mark.parametrize("text", ["n8c64", "n1c2ih8", "n1g1ic2ih8oc3kh3", "c2ih8kh2"])
def test_what_is_no_pooling_is_refused(text):
    with pytest.raises(ValueError, match="parse: a pooling must be spelt"):
        parse("max_pool", text)


def test_a_pooling_is_spelt_like_a_depthwise_convolution():
    problem = PoolProblem.pool("", (2, 8, 9, 7), (3, 2), 2, 1, ceil_mode=True)
    assert spell(problem) == "n2c8ih9iw7kh3kw2sh2ph1ceil"
    assert parse("avg_pool", spell(problem)) == problem


@pytest.mark.parametrize("row", [r for r in suite("deconv") if r.name.endswith("_s2")])
def test_a_transposed_case_has_the_output_padding_that_gives_its_shape(row):
    case = row.case("fprop", "float32")
    rebuilt = ConvProblem.transposed(
        "",
        case.x_shape,
        case.weight_shape,
        case.stride,
        case.padding,
        case.output_padding,
        case.groups,
        case.dilation,
    )
    assert rebuilt.x_shape == case.y_shape
    assert max(case.output_padding) == 1


@pytest.mark.parametrize("text", ["n3g2ic4ih9oc6kh3sh2ph1", "n1g1ic2id4oc3kd2"])
@pytest.mark.parametrize("op", ["conv", "conv_transpose"])
def test_the_work_of_a_case_is_that_of_its_problem(op, text):
    row = named("", op, text)
    case = row.case("wgrad", "float64")
    assert case.flop == 2 * row.problem.macs
    shapes = (case.x_shape, case.weight_shape, case.y_shape)
    assert case.bytes == 8 * sum(map(prod, shapes))


def test_a_pooling_moves_its_indices_where_it_has_them():
    row = named("", "max_pool", "n1c2ih8kh2sh2")
    plain, backward = (row.case(d, "float32") for d in ("fprop", "dgrad"))
    assert backward.bytes - plain.bytes == 8 * 2 * 4 * 4


def test_data_is_the_same_in_every_direction_that_reads_it():
    row = suite("tiny")[0]
    forward, weight = (data(row.case(d, "float32")) for d in ("fprop", "wgrad"))
    np.testing.assert_array_equal(forward.x, weight.x)
    assert forward.grad_y.size == weight.weight.size == 0
    assert forward.x.dtype == np.float32
    assert -0.5 <= forward.x.min() < 0 < forward.x.max() < 0.5


def test_other_batches_keep_the_layer():
    row = suite("core")[0].with_batch(2)
    assert row.case("fprop", "float32").x_shape == (2, 3, 224, 224)
    assert row.spelling.startswith("n2g1ic3")
