"""Rules, as Caffe's FilterNetTest has them."""

from __future__ import annotations

import pytest

from brickc.errors import ImportModelError
from brickc.frontends.caffe.phases import NetState, selected
from brickc.frontends.caffe.text import parse_text


def taken(rules: str, state: NetState) -> bool:
    net = parse_text(f'layer {{ name: "l" {rules} }}', "NetParameter")
    return bool(selected(net.subs("layer"), state))


@pytest.mark.parametrize(
    ("rules", "state", "expected"),
    [
        ("", NetState("TRAIN"), True),
        ("include { phase: TRAIN }", NetState("TRAIN"), True),
        ("include { phase: TRAIN }", NetState("TEST"), False),
        ("exclude { phase: TRAIN }", NetState("TRAIN"), False),
        ("exclude { phase: TRAIN }", NetState("TEST"), True),
        ("include { phase: TRAIN } include { phase: TEST }", NetState("TEST"), True),
        # a rule without conditions always holds
        ("exclude { }", NetState("TEST"), False),
        ('include { stage: "mystage" }', NetState(stages=("mystage",)), True),
        ('include { stage: "mystage" }', NetState(stages=("other",)), False),
        ('include { stage: "a" stage: "b" }', NetState(stages=("b", "a", "c")), True),
        ('include { stage: "a" stage: "b" }', NetState(stages=("a",)), False),
        ('include { stage: "a" } include { stage: "b" }', NetState(stages=("b",)), True),
        ('include { stage: "a" not_stage: "b" }', NetState(stages=("a",)), True),
        ('include { stage: "a" not_stage: "b" }', NetState(stages=("a", "b")), False),
        ("include { min_level: 3 }", NetState(level=3), True),
        ("include { min_level: 3 }", NetState(level=2), False),
        ("include { max_level: -3 }", NetState(level=-3), True),
        ("include { max_level: -3 }", NetState(level=-2), False),
        ("include { min_level: -2 max_level: 2 }", NetState(level=0), True),
        ("include { min_level: 2 phase: TRAIN }", NetState("TEST", 4), False),
        ('exclude { phase: TRAIN } exclude { stage: "m" }', NetState("TEST", 0, ("m",)), False),
    ],
)
def test_rules(rules: str, state: NetState, expected: bool) -> None:
    assert taken(rules, state) is expected


def test_rules_of_both_kinds() -> None:
    with pytest.raises(ImportModelError, match="not both"):
        taken("include { } exclude { }", NetState())


def test_states_join() -> None:
    own = parse_text('level: 1 stage: "a"', "NetState")
    given = parse_text('level: 2 stage: "b" phase: TRAIN', "NetState")
    assert NetState.of("TEST", own, given) == NetState("TRAIN", 2, ("a", "b"))
