"""Groups in a JUnit file."""

from __future__ import annotations

from xml.etree import ElementTree

from bench.plugin.junit import add_groups, with_groups
from bench.record.groups import Group

DOCUMENT = b"""<?xml version="1.0" encoding="utf-8"?><testsuites><testsuite>
<testcase name="test_upgrade[a/b-s1]"><properties><property name="x" value="1"/></properties><failure>no</failure>
</testcase><testcase name="test_upgrade[a/b-s2]"><failure>no</failure></testcase>
<testcase name="test_upgrade[a/b-s3]"/><testcase name="test_import"><failure/></testcase></testsuite></testsuites>"""
GROUP = Group(sentence="both fail", questions=("errors",), verdicts={"broken": 2}, cases=("a/b-s1", "a/b-s2", "a/b-s3"))


def groups_by_test(document: bytes) -> dict[str, list[str]]:
    return {
        test.attrib["name"]: [one.attrib["value"] for one in test.iter("property") if one.attrib["name"] == "group"]
        for test in ElementTree.fromstring(document).iter("testcase")
    }


def test_each_failed_case_has_the_sentence_of_its_group():
    document = with_groups(DOCUMENT, {"a/b-s1": "both <fail>", "a/b-s2": "both <fail>", "a/b-s3": "both <fail>"})
    assert groups_by_test(document) == {
        "test_upgrade[a/b-s1]": ["both <fail>"],
        "test_upgrade[a/b-s2]": ["both <fail>"],
        "test_upgrade[a/b-s3]": [],
        "test_import": [],
    }
    assert ElementTree.fromstring(document).find(".//property[@name='x']") is not None


def test_the_file_is_left_alone_without_groups_and_may_be_missing(tmp_path):
    path = tmp_path / "junit.xml"
    add_groups(str(path), [GROUP])
    assert not path.exists()
    path.write_bytes(DOCUMENT)
    add_groups(str(path), [])
    assert path.read_bytes() == DOCUMENT
    add_groups(str(path), [GROUP])
    assert groups_by_test(path.read_bytes())["test_upgrade[a/b-s2]"] == ["both fail"]
    add_groups(None, [GROUP])
