"""Names are valid for Kubernetes and never collide, whatever folders people and attackers choose."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from nanoclaw_runtime.contract import labels, names
from nanoclaw_runtime.contract.claims import Layout, group_claims, installation_claims

FOLDERS = st.from_regex(names.FOLDER_PATTERN, fullmatch=True)
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
SESSION = "a1b2c3d4e5f6"
POD_SUFFIX = 6
# Characters the Job controller puts behind a Job's name.


def twins(folder: str) -> set[str]:
    """Other valid folders that a careless folding would make the same, hashed look-alikes included."""
    slug = names.slug(folder)
    near = {
        folder.lower(),
        folder.upper(),
        folder.swapcase(),
        folder.replace("_", "-"),
        folder.replace("-", "_"),
        folder.rstrip("-_"),
        folder + "-",
        folder + "_",
        folder[: names.SLUG_LENGTH],
        slug,
        slug.upper(),
        slug + "-",
        names.slug(slug),
    }
    return {other for other in near if other != folder and re.fullmatch(names.FOLDER_PATTERN, other)}


@given(FOLDERS)
@example("main")
@example("0")
@example("A" * 64)
@example("-".join("ab" * 11))
@example("a" * 20 + "-" * 43 + "b")
def test_every_name_is_a_dns_label(folder):
    slug = names.slug(folder)
    assert LABEL.fullmatch(slug)
    assert len(slug) <= names.SLUG_LENGTH
    for name in (names.group_claim(folder), names.ipc_claim(folder), names.sessions_claim(folder)):
        assert LABEL.fullmatch(name)


@given(FOLDERS)
def test_a_jobs_name_leaves_room_for_its_pods(folder):
    job = names.job(folder, SESSION)
    assert LABEL.fullmatch(job)
    assert len(job) + POD_SUFFIX <= 63


@given(FOLDERS)
@example("Team_42")
@example("team-42")
@example("x" * 33)
@example("a--b")
@example("family-0123456789")
@example("family-0123456789abcdef")
def test_look_alikes_get_different_names(folder):
    for other in twins(folder):
        assert names.slug(other) != names.slug(folder), other


@given(FOLDERS, FOLDERS)
def test_different_folders_get_different_names(one, other):
    assume(one != other)
    assert names.slug(one) != names.slug(other)
    assert names.job(one, SESSION) != names.job(other, SESSION)


@given(FOLDERS)
def test_a_folder_that_looks_hashed_is_hashed_again(folder):
    hashed = names.slug(folder.upper() + "_")
    assume(hashed != folder)
    assert names.slug(hashed) != hashed


@given(st.sets(FOLDERS, min_size=1, max_size=8))
@example({"store", "project", "data", "controller", "group-x", "x"})
def test_no_two_claims_of_an_installation_share_a_name(folders):
    claims = [*installation_claims(Layout.PER_TYPE)]
    for folder in folders:
        claims += group_claims(Layout.PER_TYPE, folder)
    assert len({claim.name for claim in claims}) == len(claims)


@given(FOLDERS)
def test_labels_are_valid_label_values(folder):
    for value in labels.session(folder, SESSION, "messages").values():
        assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", value)


@pytest.mark.parametrize("folder", ["main", "team-42", "a", "x" * 32])
def test_ordinary_folders_keep_their_name(folder):
    assert names.slug(folder) == folder


@pytest.mark.parametrize(
    ("folder", "problem"),
    [
        pytest.param("", "1 to 64", id="empty"),
        pytest.param("x" * 65, "1 to 64", id="too long"),
        pytest.param("_x", "starts with", id="starts with underscore"),
        pytest.param("../etc", "letters, digits", id="path"),
        pytest.param("a/b", "letters, digits", id="slash"),
        pytest.param("a b", "letters, digits", id="space"),
        pytest.param("main\n", "letters, digits", id="newline behind"),
        pytest.param("gruppe-ä", "letters, digits", id="not ASCII"),
        pytest.param("Global", "'global' is reserved", id="reserved, any case"),
        pytest.param("errors", "'errors' is reserved", id="refused requests"),
    ],
)
def test_folders_nanoclaw_refuses(folder, problem):
    assert problem in names.folder_problem(folder)


@given(FOLDERS)
def test_folders_nanoclaw_accepts(folder):
    assume(folder.lower() not in names.RESERVED_FOLDERS)
    assert names.folder_problem(folder) is None
