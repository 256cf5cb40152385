from __future__ import annotations

import inspect

import pytest

from tellwire import errors
from tellwire.errors import CLOSE_MEANINGS, CloseCode, Conflict, TellwireError, error_classes
from tellwire.message import Position

CLASSES = [
    thing for _, thing in inspect.getmembers(errors, inspect.isclass) if issubclass(thing, TellwireError)
]  # fmt: skip


def test_error_table_has_every_code_once() -> None:
    table = error_classes()
    assert {cls.code for cls in CLASSES} == set(table)
    for code, cls in table.items():
        assert cls.code == code
        assert 400 <= cls.status <= 599


def test_error_table_names_the_class_that_stands_for_a_code() -> None:
    table = error_classes()
    assert table["bad_request"] is errors.BadRequest
    assert table["internal"] is errors.Internal
    assert table["forbidden"] is errors.Forbidden
    assert table["forbidden_origin"] is errors.ForbiddenOrigin


@pytest.mark.parametrize("cls", error_classes().values(), ids=lambda cls: cls.__name__)
def test_error_says_what_it_means(cls: type[TellwireError]) -> None:
    assert cls.meaning
    assert cls.meaning[0].islower()
    assert not cls.meaning.endswith(".")
    assert cls.__name__ in (errors.__doc__ or ""), "the tree at the top of the module shows it"


def test_error_is_the_peers_fault_or_ours_by_its_status() -> None:
    for cls in error_classes().values():
        assert (cls.status < 500) is issubclass(cls, errors.RequestError)
        assert (cls.status >= 500) is issubclass(cls, errors.ServerError)


def test_error_shows_its_detail() -> None:
    error = errors.TooLarge("200 bytes are too many; 100 are taken")
    assert str(error) == error.detail == "200 bytes are too many; 100 are taken"
    assert Conflict("taken", Position("k", 2)).head == Position("k", 2)


def test_close_codes_are_those_that_an_endpoint_may_send() -> None:
    assert set(CLOSE_MEANINGS) == set(CloseCode)
    for code in CloseCode:
        # RFC 6455, section 7.4.1: 1005, 1006 and 1015 "MUST NOT be set as a status code in a Close control frame"
        assert code not in {1004, 1005, 1006, 1015}
        assert 1000 <= code <= 1014 or 4000 <= code <= 4999
    assert {cls.close_code for cls in CLASSES} - {None} <= set(CloseCode)
