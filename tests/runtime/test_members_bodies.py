"""Bodies that do not come whole, where a request is about something that any member may know."""

import httpx
from starlette.exceptions import HTTPException

from nanoclaw_runtime.api.guard import PREFIX
from nanoclaw_runtime.api.members import Forwarding
from nanoclaw_runtime.api.places import Place


class Two:
    """Another member, that has no group."""

    node = "n1"

    def place(self, folder):
        return None

    def waits(self, folder):
        return None

    def others(self):
        return [Place("n2", "127.0.0.1:1", 0.0)]


async def nobody(scope, receive, send):
    raise AssertionError("nothing that is whole came")


async def answered(receive):
    """The status of the answer to a change of a task whose body comes like this."""
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "PATCH", "path": f"{PREFIX}/tasks/t1", "query_string": b"", "headers": []}
    async with httpx.AsyncClient() as http:
        await Forwarding(nobody, Two(), http)(scope, receive, send)
    return sent[0]["status"]


async def test_a_caller_that_goes_away_in_its_body_is_no_error_of_ours():
    coming = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]

    async def receive():
        return coming.pop(0)

    assert await answered(receive) == 400


async def test_a_body_that_grows_too_large_is_refused_as_by_one_member():
    async def receive():
        raise HTTPException(413, "send less at once")

    assert await answered(receive) == 413
