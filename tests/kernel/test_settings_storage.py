"""Where archives are kept: a folder, or a bucket and the key to it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenantry.kernel.settings import Settings, describe
from tests.kernel.settings_support import load, problems

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
BUCKET = {"STORAGE_URL": "s3://archives/tenantry"}
KEY = {"STORAGE_S3_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "STORAGE_S3_SECRET_ACCESS_KEY": SECRET}


def test_archives_are_kept_in_the_home_folder_unless_told_otherwise(tmp_path: Path) -> None:
    assert load(HOME=str(tmp_path)).storage_address == f"file://{tmp_path}/storage"
    assert load(HOME=str(tmp_path), STORAGE_URL="file:///srv/archives").storage_address == "file:///srv/archives"


def test_a_relative_home_gives_an_absolute_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load().storage_address == f"file://{tmp_path}/.tenantry/storage"


@settings(deadline=None)
@given(
    name=st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1).map(lambda s: "x" + s)
)
def test_the_address_of_any_home_leads_back_to_it_and_may_be_written_out(name: str) -> None:
    implied = Settings(home=Path("/srv") / name)
    assert Path(url2pathname(urlsplit(implied.storage_address).path)) == implied.home / "storage"
    assert Settings(storage_url=implied.storage_address).storage_address == implied.storage_address


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("file:///srv/archives/", "file:///srv/archives"),
        ("FILE:///srv/tenant%20archives", "file:///srv/tenant%20archives"),
        ("s3://archives", "s3://archives"),
        ("s3://archives/", "s3://archives"),
        ("S3://my.archives-1/eu/tenantry/", "s3://my.archives-1/eu/tenantry"),
    ],
)
def test_a_folder_or_a_bucket_is_stored_without_the_slash_at_its_end(given: str, stored: str) -> None:
    assert load(STORAGE_URL=given).storage_url == stored


@pytest.mark.parametrize(
    "url",
    [
        "/srv/archives",
        "file://",
        "file:///",
        "file://srv/archives",
        "file:srv",
        "file:///srv/../etc",
        "file:///srv/%2e%2E/etc",
        "file:///srv/a%2fb",
        "file:///srv/a%00b",
        "file:///srv//archives",
        "file:///srv/archives?mode=0600",
        "file:///srv/tenant archives",
        "s3://",
        "s3:///prefix",
        "s3://ab",
        "s3://Archives",
        "s3://my_archives",
        "s3://a..b",
        "s3://archives:9000/prefix",
        "s3://archives/../others",
        "s3://archives/prefix?region=eu-central-1",
        "s3://id:secret@archives/prefix",
        "gs://archives/prefix",
        "https://archives.s3.amazonaws.com/",
    ],
)
def test_any_other_place_is_refused(url: str) -> None:
    (problem,) = problems(STORAGE_URL=url)
    assert problem.startswith("TENANTRY_STORAGE_URL: got ")
    assert problem.endswith("expected an address of the form file:///absolute/folder or s3://bucket/prefix")


def test_a_bucket_may_be_on_another_server_and_have_a_key() -> None:
    found = load(
        STORAGE_S3_ENDPOINT="HTTPS://minio.example.com:9000/", STORAGE_S3_REGION="eu-central-1", **BUCKET, **KEY
    )
    assert found.storage_s3_endpoint == "https://minio.example.com:9000"
    assert found.storage_s3_region == "eu-central-1"
    assert found.storage_s3_access_key_id == KEY["STORAGE_S3_ACCESS_KEY_ID"]
    assert found.storage_s3_secret_access_key is not None
    assert found.storage_s3_secret_access_key.get_secret_value() == SECRET


def test_a_bucket_without_a_key_is_left_to_the_default_chain() -> None:
    found = load(**BUCKET)
    assert (found.storage_s3_access_key_id, found.storage_s3_secret_access_key) == (None, None)


def test_a_key_is_given_whole_or_not_at_all() -> None:
    (lone_id,) = problems(**BUCKET, STORAGE_S3_ACCESS_KEY_ID="AKIAIOSFODNN7EXAMPLE")
    assert lone_id == (
        "TENANTRY_STORAGE_S3_SECRET_ACCESS_KEY: is not set, expected a secret without spaces, "
        "since TENANTRY_STORAGE_S3_ACCESS_KEY_ID is set"
    )
    (lone_secret,) = problems(**BUCKET, STORAGE_S3_SECRET_ACCESS_KEY=SECRET)
    assert lone_secret == (
        "TENANTRY_STORAGE_S3_SECRET_ACCESS_KEY: got (not shown), "
        "expected TENANTRY_STORAGE_S3_ACCESS_KEY_ID to be set as well"
    )


def test_one_wrong_half_of_a_key_is_one_problem() -> None:
    (problem,) = problems(**BUCKET, **{**KEY, "STORAGE_S3_ACCESS_KEY_ID": "two words"})
    assert problem == "TENANTRY_STORAGE_S3_ACCESS_KEY_ID: got 'two words', expected a key's id without spaces"


@pytest.mark.parametrize(
    "url", ["minio:9000", "s3://minio", "https://", "https://:9000", "https://h:99999", "https://h?x"]
)
def test_an_endpoint_that_is_no_http_address_is_refused(url: str) -> None:
    (problem,) = problems(**BUCKET, STORAGE_S3_ENDPOINT=url)
    assert problem.startswith("TENANTRY_STORAGE_S3_ENDPOINT: got ")
    assert problem.endswith("expected an address of the form https://host:port")


@pytest.mark.parametrize("region", ["eu central 1", "-eu", "r" * 64])
def test_a_region_that_cannot_be_one_is_refused(region: str) -> None:
    (problem,) = problems(**BUCKET, STORAGE_S3_REGION=region)
    assert problem == f"TENANTRY_STORAGE_S3_REGION: got {region!r}, expected a region's name such as eu-central-1"


@pytest.mark.parametrize("place", [{}, {"STORAGE_URL": "file:///srv/archives"}])
def test_a_buckets_settings_without_a_bucket_are_refused_rather_than_ignored(place: dict[str, str]) -> None:
    given = {"STORAGE_S3_ENDPOINT": "http://minio:9000", "STORAGE_S3_REGION": "auto", **KEY}
    found = problems(**place, **given)
    assert [problem.partition(":")[0] for problem in found] == [f"TENANTRY_{name}" for name in given]
    wanted = "expected TENANTRY_STORAGE_URL to be an address of the form s3://bucket/prefix as well"
    assert all(problem.endswith(wanted) for problem in found)
    assert SECRET not in "".join(found)


def test_a_wrong_place_is_not_blamed_on_the_buckets_other_settings() -> None:
    (problem,) = problems(STORAGE_URL="s3://Archives", STORAGE_S3_REGION="auto", **KEY)
    assert problem.startswith("TENANTRY_STORAGE_URL: ")


def test_the_secret_is_never_shown() -> None:
    found = load(**BUCKET, **KEY)
    docs = {doc.name: doc for doc in describe(found)}
    assert docs["storage_s3_secret_access_key"].value == "***"
    assert docs["storage_s3_secret_access_key"].default is None
    assert docs["storage_url"].value == "s3://archives/tenantry"
    assert SECRET not in repr(found) + str(found) + repr(docs)


@pytest.mark.parametrize("form", ["{}\n", "two {}", "x://{} ", "{}@h\n"])
def test_a_wrong_secret_is_reported_without_it(form: str) -> None:
    given = BUCKET | KEY | {"STORAGE_S3_SECRET_ACCESS_KEY": form.format(SECRET)}
    assert problems(**given) == (
        "TENANTRY_STORAGE_S3_SECRET_ACCESS_KEY: got (not shown), expected a secret without spaces",
    )
