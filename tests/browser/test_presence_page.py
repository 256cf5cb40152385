"""Who is here, on the page at ``/``: over each wire, with names and typing, and messages for one alone."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import WATCHDOG_MS, Complaints
from tests.browser.lanes import LANES, Console
from tests.serving import Server
from tests.wires import Http, Response

NASTY = "<img src=x onerror=\"document.title='owned'\">"


class Member:
    """A client that only asks: held by a lease."""

    def __init__(self, server: Server, channel: str) -> None:
        self.channel = channel
        self.session = secrets.token_hex(8)
        self._server = server

    def say(self, state: Any, *, enter: bool = True) -> dict[str, Any]:
        body = {"channel": self.channel, "session": self.session, "enter": enter}
        answer = self._post("/v1/presence", {**body, "state": state} if enter else body)
        assert answer.status == 200, answer
        told: dict[str, Any] = answer.json()
        return told

    def leave(self) -> None:
        self.say(None, enter=False)

    def send(self, to: str, data: Any) -> None:
        body = {"channel": self.channel, "session": self.session, "to": to, "data": data}
        assert self._post("/v1/send", body).status == 200

    def _post(self, path: str, body: dict[str, Any]) -> Response:
        with Http(self._server) as http:  # in between a page may take longer than an idle connection lasts
            return http.post(path, body)


@pytest.fixture
def enter(server: Server, channel: str) -> Callable[[], Member]:
    """Make clients that may enter the channel."""
    return lambda: Member(server, channel)


def name(page: Page, text: str) -> None:
    """Take a name, and wait until the server has told it."""
    page.get_by_label("Your name").fill(text)
    expect(page.locator("[data-me=true] .name")).to_have_text(text)


def own_client(page: Page) -> str:
    client = page.locator("[data-me=true]").get_attribute("data-client", timeout=WATCHDOG_MS)
    assert client
    return client


def expect_members(page: Page, *names: str) -> None:
    expect(page.locator("#members .name")).to_have_text(list(names), timeout=WATCHDOG_MS)


def test_two_pages_see_each_other_come_type_talk_and_go(
    start_server: Callable[..., Server], open_page: Callable[[], Page], channel: str
) -> None:
    server = start_server(limits={"presence_grace_s": 0.5})
    ann, bo = open_page(), open_page()
    ann.clock.install()
    first = Console(ann, server, channel)
    Console(bo, server, channel)
    name(ann, "Ann")
    name(bo, "Bo")
    for page in (ann, bo):
        expect_members(page, "Ann", "Bo")
        expect(page.locator("#here-count")).to_have_text("2 clients, 2 users")
    for key in LANES:
        expect(first.lane(key).locator(".note.is-here").filter(has_text="came")).to_have_count(1)
    while not bo.get_by_text("Ann is typing…", exact=True).is_visible():  # as long as she does
        ann.get_by_label("Message", exact=True).press("a")
    ann.clock.fast_forward(3000)  # without a key
    expect(bo.locator("#typing")).to_be_empty()
    expect(ann.locator("#typing")).to_be_empty()
    bo.locator("#members").get_by_role("button", name="Ann").click()
    bo.get_by_label("Message for Ann alone").fill("psst")
    bo.get_by_role("button", name="Send", exact=True).click()
    expect(ann.get_by_role("log")).to_have_text("Bo to you: psst")
    expect(bo.get_by_role("log")).to_have_text("you to Ann: psst")
    bo.close()
    expect_members(ann, "Ann")
    for key in LANES:
        expect(first.lane(key).get_by_text("Bo left", exact=True)).to_have_count(1)
    expect(ann.get_by_role("log").locator("li")).to_have_count(1)


@pytest.mark.parametrize("key", LANES)
def test_each_wire_alone_tells_who_comes_types_and_goes(
    page: Page, server: Server, channel: str, enter: Callable[[], Member], key: str
) -> None:
    console = Console(page, server, channel)
    me = own_client(page)
    for other in LANES:
        if other != key:
            console.cut(other)
    name(page, "Ann")
    bo = enter()
    bo.say({"name": "Bo"})
    expect_members(page, "Ann", "Bo")
    bo.say({"name": "Bo", "typing": True})
    expect(page.locator("#typing")).to_have_text("Bo is typing…")
    bo.say({"name": "Bo"})
    expect(page.locator("#typing")).to_be_empty()
    bo.send(me, {"text": "over any wire"})
    expect(page.get_by_role("log")).to_have_text("Bo to you: over any wire")
    bo.leave()
    expect_members(page, "Ann")
    assert own_client(page) == me


def test_reload_is_the_same_client_and_neither_a_leave_nor_a_join(
    start_server: Callable[..., Server], open_page: Callable[[], Page], channel: str
) -> None:
    server = start_server(limits={"presence_grace_s": 30.0})
    first, second = Console(open_page(), server, channel), Console(open_page(), server, channel)
    name(second.page, "Bo")
    client = own_client(second.page)
    second.page.reload()
    second.expect_live()
    assert own_client(second.page) == client
    expect(second.page.get_by_label("Your name")).to_have_value("Bo")
    second.publish("back again")
    first.expect_all(1)
    expect_members(first.page, f"guest {own_client(first.page)[:4]}", "Bo")
    expect(first.page.locator(".note.is-here").filter(has_text="left")).to_have_count(0)
    expect(first.page.locator(".note.is-here").filter(has_text="came")).to_have_count(len(LANES))


def test_names_states_and_messages_are_shown_as_text(
    page: Page, server: Server, channel: str, enter: Callable[[], Member]
) -> None:
    Console(page, server, channel)
    me = own_client(page)
    nasty = enter()
    nasty.say({"name": NASTY[:40], "typing": True})
    expect_members(page, f"guest {me[:4]}", NASTY[:40])
    expect(page.locator("#typing")).to_contain_text(f"{NASTY[:40]} is typing…")
    nasty.send(me, {"text": NASTY})
    nasty.send(me, {NASTY: [NASTY]})
    expect(page.get_by_role("log").locator("li")).to_have_count(2)
    expect(page.get_by_role("log")).to_contain_text(f"{NASTY[:40]} to you: {NASTY}")
    expect(page.get_by_role("log")).to_contain_text(json.dumps({NASTY: [NASTY]}, separators=(",", ":")))
    states: tuple[Any, ...] = ("text", 7, None, [], {"name": 7}, {"name": "  "}, {"name": {"name": "x"}})
    for state in states:
        client = nasty.say(state)["client"]
        expect_members(page, f"guest {me[:4]}", f"guest {client[:4]}")
    nasty.say({"name": "a\u202eb\u0000c\nd" + "x" * 100})
    expect_members(page, f"guest {me[:4]}", "a b c d" + "x" * 33 + "…")
    assert page.locator("#here img, #here script, .lane img").count() == 0
    assert page.title() != "owned"


def test_typing_is_told_seldom_and_not_believed_for_ever(
    page: Page, server: Server, channel: str, enter: Callable[[], Member]
) -> None:
    page.clock.install()
    Console(page, server, channel)
    me = own_client(page)
    other = enter()
    cursor = other.say({"name": "Bo", "typing": True})["cursor"]
    expect(page.locator("#typing")).to_have_text("Bo is typing…")
    page.get_by_label("Message", exact=True).press_sequentially("a" * 60)
    page.clock.fast_forward(8000)
    expect(page.locator("#typing")).to_be_empty()  # Bo has said nothing since
    page.get_by_role("button", name="Publish", exact=True).click()
    updates: list[dict[str, Any]] = []
    while not updates:  # what the page has told may still be on its way
        with Http(server) as http:
            answer = http.get(f"/v1/messages?channel={channel}&presence=watch&since={cursor}").json()
        updates = [push for push in answer["messages"] if push["type"] == "update" and push["member"]["client"] == me]
    assert len(updates) < 20
    assert updates[0]["member"]["state"]["typing"] is True


def test_large_channel_is_only_counted(start_server: Callable[..., Server], page: Page, channel: str) -> None:
    server = start_server(namespaces=[{"name": "crowd", "presence_max_members": 3}])
    page.clock.install()
    Console(page, server, f"crowd:{channel}")
    expect(page.locator("#here-count")).to_have_text("1 client, 1 user")
    members = [Member(server, f"crowd:{channel}") for _ in range(4)]
    for member in members:
        member.say(None)
    expect(page.locator("#here-count")).to_have_text("5 clients, 5 users: too many to name")
    expect(page.locator("#members li")).to_have_count(0)
    for member in members[1:]:
        member.leave()
    while page.locator("#members li").count() != 2:  # it asks seldom
        page.clock.fast_forward(1000)
    expect(page.locator("#here-count")).to_have_text("2 clients, 2 users")


def test_message_for_one_who_has_left_is_explained(
    page: Page, server: Server, channel: str, enter: Callable[[], Member], complaints: Complaints
) -> None:
    complaints.allow("404")
    Console(page, server, channel)
    other = enter()
    other.say({"name": "Bo"})
    button = page.locator("#members").get_by_role("button", name="Bo")
    button.focus()
    page.keyboard.press("Enter")
    other.leave()
    expect(page.get_by_text("(has left)")).to_be_visible()
    page.get_by_label("Message for Bo alone").fill("still there?")
    page.keyboard.press("Enter")
    expect(page.locator("#direct").get_by_role("alert")).to_contain_text("Not sent: ")
    page.get_by_role("button", name="Close", exact=True).click()
    expect(page.locator("#direct")).to_be_hidden()


def test_roster_takes_the_same_from_several_lanes(page: Page, server: Server, channel: str) -> None:
    Console(page, server, channel)
    found = page.evaluate("""async () => {
        const { Roster } = await import("/console/roster.js");
        const join = (client, seq, user) => ({ type: "join", channel: "c", member: { client, user }, seq });
        const leave = (client, seq) => ({ type: "leave", channel: "c", member: { client }, seq });
        const list = (cursor, ...clients) => ({
            channel: "c", client: "a", members: clients.map((client) => ({ client })),
            clients: clients.length, users: clients.length, cursor,
        });
        const results = {};
        const check = (name, steps) => {
            const roster = new Roster();
            const asks = steps(roster);
            results[name] = [[...roster.members.keys()].join(""), roster.clients, roster.users, asks ?? null];
        };
        check("in the list already", (r) => { r.know(list("k.5", "a", "b")); r.take(leave("b", 4), "k.9"); });
        check("another lane is late", (r) => {
            r.know(list("k.5", "a"));
            r.take(join("b", 6), "k.6"); r.take(leave("b", 7), "k.7"); r.take(join("b", 6), "k.6");
        });
        check("the list is late", (r) => {
            r.know(list("k.5", "a"));
            r.take(join("b", 6), "k.6"); r.take(join("c", 7), "k.7");
            r.know(list("k.6", "a", "b"));
        });
        check("before the list", (r) => {
            const asks = r.take(join("b", 6), "k.6");
            r.know(list("k.5", "a"));
            return asks;
        });
        check("another log", (r) => {
            r.know(list("k.5", "a"));
            const asks = r.take(join("b", 2), "n.2");
            r.know(list("n.1", "a"));
            return asks;
        });
        check("one user with two clients", (r) => {
            r.know(list("k.5")); r.take(join("b", 6, "u"), "k.6"); r.take(join("c", 7, "u"), "k.7");
        });
        check("counted", (r) => {
            r.know(list("k.5", "a"));
            return r.take({ type: "count", channel: "c", clients: 9, users: 8, seq: 6 }, "k.6");
        });
        check("counted by a late lane", (r) => {
            r.know(list("k.7", "a"));
            return r.take({ type: "count", channel: "c", clients: 9, users: 8, seq: 6 }, "k.6");
        });
        return results;
    }""")
    assert found == {
        "in the list already": ["ab", 2, 2, None],
        "another lane is late": ["a", 1, 1, None],
        "the list is late": ["abc", 3, 3, None],
        "before the list": ["ab", 2, 2, True],
        "another log": ["ab", 2, 2, True],
        "one user with two clients": ["bc", 2, 1, None],
        "counted": ["", 9, 8, True],
        "counted by a late lane": ["a", 1, 1, False],
    }
