import json

import pytest

from fusion_nets.receiving import Facts, pairs_by, read_rules

RULE = {
    "name": "head",
    "anatomy": {"modality": "MRI", "description": ["*t1*", "*MPRAGE*"]},
    "overlay": {"modality": "PT"},
}


def rules(tmp_path, *entries, **top):
    path = tmp_path / "rules.json"
    path.write_text(json.dumps({"pairs": list(entries), **top}))
    return read_rules(path)


def series(folder, modality, description="", **how):
    return Facts(folder, modality, description, **how)


def found(rule, *there):
    return [(one.folder, other.folder) for one, other in pairs_by(rule, there)]


def test_by_modality_and_description(tmp_path):
    (rule,) = rules(tmp_path, RULE)
    there = [series(1, "MR", "Ax T1 GD"), series(2, "MR", "T2 FLAIR"), series(3, "PT", "FDG"), series(4, "CT")]
    assert found(rule, *there) == [(1, 3)]
    assert found(rule, *there, series(5, "MR", "  sag\tmprage ")) == [(1, 3), (5, 3)]
    assert found(rule, series(1, "MR"), series(3, "PT")) == []


def test_by_body_part_and_number_of_images(tmp_path):
    wanted = {"modality": ["CT", "MR"], "body_part": ["head", "BRAIN"], "least_images": 20, "without": "*scout*"}
    (rule,) = rules(tmp_path, {**RULE, "anatomy": wanted})
    pet = series(9, "PT")
    assert found(rule, series(1, "CT", body_part="Head", images=20), pet) == [(1, 9)]
    assert found(rule, series(1, "CT", body_part="HEAD", images=19), pet) == []
    assert found(rule, series(1, "CT", body_part="CHEST", images=30), pet) == []
    assert found(rule, series(1, "CT", "Scout 1", body_part="HEAD", images=30), pet) == []


def test_a_series_is_no_pair_with_itself(tmp_path):
    (rule,) = rules(tmp_path, {**RULE, "anatomy": {"modality": "CT"}, "overlay": {"modality": "CT"}})
    assert found(rule, series(1, "CT"), series(2, "CT")) == [(1, 2), (2, 1)]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"anatomi": {}}, "pairs[0]: unknown key 'anatomi', perhaps 'anatomy'"),
        ({"anatomy": {"modalty": "MR"}}, "anatomy: unknown key 'modalty', perhaps 'modality'"),
        ({"anatomy": {"modality": "MX"}}, "anatomy.modality is 'MX'"),
        ({"anatomy": {}}, '"modality" is missing'),
        ({"overlay": {"modality": "PT", "description": 7}}, "overlay.description is 7"),
        ({"overlay": {"modality": "PT", "least_images": 0}}, "least_images is 0"),
        ({"overlay": "PT"}, 'overlay is "PT"; an object'),
        ({"method": "dmfnett"}, "perhaps 'dmfnet'"),
        ({"options": {"regsiter": "rigid"}}, "unknown option 'regsiter', perhaps 'register'"),
        ({"options": {"register": 3}}, "register is 3"),
        ({"options": {"output_dir": "/"}}, "'output_dir' is said by the node itself"),
        ({"options": {"inferer": {"_target_": "os.system"}}}, "is code"),
        ({"bundle_root": "nowhere"}, "nowhere/configs/inference.json: no such file"),
        ({"most": True}, "most is true"),
    ],
)
def test_what_is_wrong_is_told(tmp_path, change, told):
    with pytest.raises(ValueError, match=r"rules\.json: pairs") as error:
        rules(tmp_path, {**RULE, **change})
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[", "no JSON"),
        ("[]", "an object"),
        ("{}", '"pairs" is no list'),
        ('{"pairs": []}', '"pairs" is no list'),
        ('{"pair": []}', "perhaps 'pairs'"),
    ],
)
def test_a_file_that_holds_no_rules(tmp_path, content, told):
    (tmp_path / "rules.json").write_text(content)
    with pytest.raises(ValueError, match=r"rules\.json") as error:
        read_rules(tmp_path / "rules.json")
    assert told in str(error.value)


def test_names_are_for_one_rule_each(tmp_path):
    with pytest.raises(ValueError, match="two rules are called 'head'"):
        rules(tmp_path, RULE, RULE)
