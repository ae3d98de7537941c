"""Adds the groups to a JUnit file: they are known when all cases have ended, which is after their properties."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from bench.files import write_atomically
from bench.record.groups import Group, sentence_by_case

PROPERTY = "group"


def add_groups(path: str | None, groups: Sequence[Group]) -> None:
    """Gives each failed test of a case the property ``group``.

    Args:
        path: of the JUnit file; ``None``, or without a file there, nothing is done.
    """
    sentences = sentence_by_case(groups)
    if path and sentences and Path(path).is_file():
        write_atomically(Path(path), with_groups(Path(path).read_bytes(), sentences))


def with_groups(document: bytes, sentences: dict[str, str]) -> bytes:
    """The JUnit document with the sentence of its group at each failed test of a case.

    Args:
        sentences: by the id of the case.
    """
    root = ElementTree.fromstring(document)
    for test in root.iter("testcase"):
        case = test.get("name", "").partition("[")[2].removesuffix("]")
        if case not in sentences or test.find("failure") is None:
            continue
        properties = test.find("properties")
        if properties is None:
            properties = ElementTree.Element("properties")
            test.insert(0, properties)
        ElementTree.SubElement(properties, "property", name=PROPERTY, value=sentences[case])
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
