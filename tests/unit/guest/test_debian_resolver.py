"""Versions and relations of Debian's packages, and which packages a set needs."""

from __future__ import annotations

import itertools

import pytest

from vfio_user_xe.emulator.guest.debian.resolver import PackageLists, resolve
from vfio_user_xe.emulator.guest.debian.versions import Relation, order, relations
from vfio_user_xe.emulator.guest.errors import FetchFailed

# Each is older than the next one: deb-version(7), and what dpkg's own tests compare.
ASCENDING = [
    "0~~",
    "0~~a",
    "0~",
    "0",
    "0a",
    "0.0",
    "1.0~beta1~svn1245",
    "1.0~beta1",
    "1.0-1~bpo13+1",
    "1.0-1",
    "1.0-1+b1",
    "1.0-1+deb13u1",
    "1.0-1.1",
    "1.0-2",
    "1.0-10",
    "1.0a",
    "1.0+ds-1",
    "1.0.1",
    "1.2-3-1",
    "1:0.1",
    "2:0",
]


def test_versions_are_ordered_as_dpkg_orders_them() -> None:
    for older, newer in itertools.combinations(ASCENDING, 2):
        assert order(older) < order(newer), f"{older} < {newer}"


@pytest.mark.parametrize(("one", "another"), [("1.0", "1.0-0"), ("0:1", "1"), ("1.01", "1.1"), ("1.0-00", "1.0-0")])
def test_versions_that_are_written_differently_may_be_equal(one: str, another: str) -> None:
    assert order(one) == order(another)


def test_what_is_no_version_is_named() -> None:
    with pytest.raises(FetchFailed, match="'x:1' is no version"):
        order("x:1")


def test_relations_are_read_with_alternatives_versions_and_architectures() -> None:
    assert relations("libc6 (>= 2.41), python3:any (<< 3.15~) | python2,\n a") == [
        (Relation("libc6", ">=", "2.41"),),
        (Relation("python3", "<<", "3.15~"), Relation("python2")),
        (Relation("a"),),
    ]
    with pytest.raises(FetchFailed, match=r"'libc6 \(> \)' is no relation"):
        relations("libc6 (> )")


@pytest.mark.parametrize(("relation", "admitted"), [("<<", "0"), ("<=", "01"), ("=", "1"), (">=", "12"), (">>", "2")])
def test_operators_admit_what_they_say(relation: str, admitted: str) -> None:
    said = {version for version in "012" if Relation("a", relation, "1").admits(version)}
    assert said == set(admitted)
    assert not Relation("a", relation, "1").admits("")


def lists(*stanzas: str) -> PackageLists:
    made = PackageLists("preferred")
    made.add("suite", "\n\n".join(stanzas))
    return made


def package(name: str, version: str = "1", **fields: str) -> str:
    said = {"Package": name, "Version": version, **fields}
    return "\n".join(f"{key}: {text}" for key, text in said.items())


def chosen(made: PackageLists, *wanted: str) -> list[str]:
    return [entry.name for entry in resolve(made, wanted, {"assumed": "", "linux-base": "99"})]


def test_an_alternative_that_is_chosen_already_serves() -> None:
    made = lists(package("a", Depends="b, first | b"), package("b"), package("first"))
    assert chosen(made, "a") == ["a", "b"]


def test_what_is_assumed_is_not_fetched() -> None:
    made = lists(
        package("a", Depends="assumed, linux-base (>= 4.12), assumed (>= 2) | b"), package("b"), package("assumed")
    )
    assert chosen(made, "a") == ["a", "b"]


def test_a_virtual_package_is_provided_by_one_that_is_usual() -> None:
    made = lists(
        package("a", Depends="awk"),
        package("busy", Provides="awk", Priority="optional"),
        package("mawk", Provides="awk (= 3)", Priority="required"),
    )
    assert chosen(made, "a") == ["a", "mawk"]
    versioned = lists(
        package("a", Depends="awk (>= 2)"), package("busy", Provides="awk"), package("z", Provides="awk (= 2)")
    )
    assert chosen(versioned, "a") == ["a", "z"]


def test_packages_that_need_each_other_are_both_chosen() -> None:
    assert chosen(lists(package("a", Depends="b"), package("b", Depends="a")), "a") == ["a", "b"]


def test_two_that_conflict_are_refused_and_one_may_conflict_with_what_it_provides() -> None:
    alone = lists(package("a", Provides="mail", Conflicts="mail"))
    assert chosen(alone, "a") == ["a"]
    both = lists(package("a", Depends="b"), package("b", Breaks="a (<< 2)"))
    with pytest.raises(FetchFailed, match=r"b conflicts with a \(<< 2\), and a is needed, too"):
        chosen(both, "a")


def test_another_version_of_what_is_chosen_is_refused_with_it() -> None:
    made = lists(package("a", Depends="c, b (= 1)"), package("b", "2"), package("b", "1"), package("c", Depends="b"))
    with pytest.raises(FetchFailed, match=r"b \(= 3\), which d needs, cannot be had from the suites \(b 2 is taken\)"):
        chosen(lists(package("a", Depends="b, d"), package("b", "2"), package("d", Depends="b (= 3)")), "a")
    assert made.candidates("b")[0].version == "2"
