"""Pages and cursors."""

from __future__ import annotations

import pytest

from schemas.faults import InvalidValue
from schemas.ids import new_id
from schemas.records import Session, StoredMessage
from workers.records.pages import (
    MAX_LIMIT,
    message_page,
    message_place,
    page_limit,
    session_page,
    session_place,
)
from workers.storage.sessions import BEFORE_MESSAGES, BEFORE_SESSIONS, MessageRow, SessionPlace

CREATED = "2026-01-02T03:04:05.000600Z"


def session(id: str = "", created_at: str = CREATED) -> Session:
    return Session(
        id=id or new_id(),
        title=None,
        personality_id="default",
        message_count=0,
        last_message_at=None,
        created_at=created_at,
    )


def message(ord: int, found: int) -> MessageRow:
    stored = StoredMessage(
        id=new_id(), role="user", content="", turn_id=None, parent_id=None, created_at=CREATED, metadata={}
    )
    return MessageRow(ord=ord, found=found, message=stored)


def test_a_list_that_fits_has_no_cursor() -> None:
    page = session_page([session(), session()], limit=2)
    assert (len(page.data), page.has_more, page.next_cursor) == (2, False, None)


def test_a_cursor_leads_to_the_place_after_the_last_session_shown() -> None:
    last = session()
    page = session_page([session(), last, session()], limit=2)
    assert page.has_more
    assert page.data[-1] == last
    assert session_place(page.next_cursor) == SessionPlace(CREATED, last.id)


def test_a_cursor_leads_to_the_place_after_the_last_message_shown() -> None:
    page = message_page([message(7, 3), message(9, 3), message(12, 3)], limit=2)
    assert (len(page.data), page.has_more) == (2, True)
    assert message_place(page.next_cursor) == 9


def test_messages_left_out_for_their_size_are_more() -> None:
    page = message_page([message(7, 5)], limit=20)
    assert (len(page.data), page.has_more) == (1, True)
    assert message_place(page.next_cursor) == 7


def test_an_empty_list_has_no_cursor() -> None:
    assert message_page([], limit=20).next_cursor is None


def test_no_cursor_means_the_beginning() -> None:
    assert session_place(None) == BEFORE_SESSIONS
    assert message_place(None) == BEFORE_MESSAGES


BASE64_OF_A_TIME_WITHOUT_AN_ID = "MjAyNi0wMS0wMlQwMzowNDowNVo"
BASE64_OF_MINUS_ONE = "LTE"
BASE64_OF_A_NUMBER_TOO_LARGE = "OTIyMzM3MjAzNjg1NDc3NTgwOA"


@pytest.mark.parametrize(
    "cursor", ["", "?", "abc", "äöü", BASE64_OF_A_TIME_WITHOUT_AN_ID, BASE64_OF_MINUS_ONE, "A" * 10_000]
)
def test_a_cursor_that_a_list_did_not_give_out_is_refused_by_name(cursor: str) -> None:
    for place in (session_place, message_place):
        with pytest.raises(InvalidValue) as refused:
            place(cursor)
        assert refused.value.record.param == "cursor"


def test_a_message_cursor_beyond_every_message_is_refused() -> None:
    with pytest.raises(InvalidValue):
        message_place(BASE64_OF_A_NUMBER_TOO_LARGE)


@pytest.mark.parametrize(("asked", "given"), [(-1, 1), (0, 1), (20, 20), (1000, MAX_LIMIT)])
def test_a_limit_is_kept_within_what_a_page_holds(asked: int, given: int) -> None:
    assert page_limit(asked) == given
