"""Records are bounded, in number and in bytes, and hide credentials."""

import msgspec

from ops.local.scripted.records import Records


def test_only_the_last_thousand_are_kept_and_listed_oldest_first() -> None:
    records = Records()
    for number in range(1002):
        records.add("POST", "/v1/x", {}, b"%d" % number)
    listing = msgspec.json.decode(records.listing(1000))
    assert [record["body"] for record in listing["data"]] == list(range(2, 1002))
    newest = msgspec.json.decode(records.listing(2))
    assert [record["body"] for record in newest["data"]] == [1000, 1001]
    assert newest["has_more"] is True


def test_large_bodies_push_out_older_ones() -> None:
    records = Records()
    for _ in range(5):
        records.add("POST", "/v1/x", {}, bytes(30 * 1024 * 1024))
    assert len(records) == 2


def test_credentials_are_reduced_to_their_end() -> None:
    record = Records().add("GET", "/", {"authorization": "Bearer sk-12345678", "accept": "text/plain"}, b"")
    assert record.headers == {"authorization": "5678", "accept": "text/plain"}


def test_a_body_that_is_not_json_is_shown_as_text() -> None:
    records = Records()
    records.add("POST", "/v1/x", {}, b"{\xff")
    assert msgspec.json.decode(records.listing(1))["data"][0]["body"] == "{\ufffd"
