"""A host as a process on a real Docker engine, talked to over HTTP, held at a point and killed there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import ssl
import subprocess

import httpx
import yaml

from nanoclaw_runtime.contract import wire
from tests.support.bot_api import TOKEN
from tests.support.crash_points import FOLDER, POINTS, held_file, held_main
from tests.support.forked import Forked
from tests.support.ports import free_port

CHAT = 42
"""Of group `main`, where there is a chat network."""

PATIENCE = 120.0
"""Seconds for anything that should happen; a wait that is in vain ends with what was seen."""

_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients that are made at each look: by default each reads all certificates of the world."""

FINISHING = ("answer", "done", "failure")
"""Events that say of messages that they are over."""


class HostProcess:
    """One tree, with group `main`. Messages are told apart by their text, which is their client id, too."""

    def __init__(self, engine, folder, image, **runtime):
        self.engine, self.tree, self.points = engine, folder / "tree", folder / "points"
        self.points.mkdir(parents=True)
        self._stack = folder / "stack.yaml"
        agent = {"image": image, "imagePullPolicy": "Never"}
        main = {"folder": "main", "name": "Main", "jid": f"tg:{CHAT}"}
        settings = {"runtime": {"agent": agent} | runtime, "groups": [main]}
        self._stack.write_text(yaml.safe_dump(settings))
        self._port = free_port()
        self._process = None
        self._log = folder / "log"

    async def start(self):
        """Return when it serves."""
        options = ["--tree", self.tree, "--port", str(self._port), "--network", "none"]
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.tree.parent),
            "DOCKER_HOST": self.engine.host,
            FOLDER: str(self.points),
            wire.TELEGRAM_TOKEN_KEY: TOKEN,
        }
        line = ("host", self._stack, *options)
        self._process = await Forked.start(held_main, *line, environment=environment, out=self._log, err=self._log)
        async with self._patience():
            while not await self._ready():
                assert self._process.returncode is None, self._log.read_text()
                await asyncio.sleep(0.02)

    async def kill(self):
        """As `kill -9` does. The points are as they were before any was armed."""
        self._process.kill()
        await self._process.wait()
        for file in self.points.iterdir():
            file.unlink()

    async def close(self):
        """Leave nothing on the engine."""
        if self._process is not None and self._process.returncode is None:
            await self.kill()
        if listed := self.docker("ps", "--all", "--quiet").split():
            self.docker("rm", "--force", *listed)

    def arm(self, point):
        assert point in POINTS
        (self.points / point).touch()

    async def held(self, point):
        """Return when the process is held there."""
        await self.until(held_file(self.points, point).exists)

    def release(self, point):
        (self.points / point).unlink()

    async def container_runs(self):
        await self.until(lambda: self.docker("ps", "--quiet"))

    async def until(self, condition):
        async with self._patience():
            while not condition():
                await asyncio.sleep(0.01)

    def requests(self):
        """Files in which its agent asks for something."""
        return [file for kind in ("messages", "tasks") for file in self.tree.glob(f"data/ipc/main/{kind}/*.json")]

    async def send(self, text):
        """Return when it is acknowledged; the message's id."""
        async with self._client() as client:
            answer = await client.post("/v1/groups/main/messages", json={"text": text, "id": text})
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]

    async def post(self, path, **body):
        async with self._client() as client:
            answer = await client.post(f"/v1/{path}", json=body)
        assert answer.is_success, answer.text
        return answer.json()

    async def get(self, path):
        async with self._client() as client:
            answer = await client.get(f"/v1/{path}")
        assert answer.is_success, answer.text
        return answer.json()

    async def stop_sessions(self):
        async with self._client() as client:
            for session in (await self.get("sessions"))["sessions"]:
                await client.delete(f"/v1/sessions/{session['session']}")

    async def events_until(self, enough):
        """Everything since the beginning, up to the event after which `enough` says so of all of them."""
        seen = []
        async with (
            self._patience(seen),
            self._client() as client,
            client.stream("GET", "/v1/events", params={"after": 0}) as stream,
        ):
            async for line in stream.aiter_lines():
                if line.startswith("data: "):
                    seen.append(json.loads(line.removeprefix("data: ")))
                    if enough(seen):
                        return seen
        raise AssertionError(f"the stream ended after {seen}")

    async def over(self, *messages):
        """Events until each of these messages is over; none where no message is named."""
        return messages and await self.events_until(lambda seen: set(messages) <= set(finished(seen)))

    def docker(self, *arguments):
        return subprocess.run(self.engine.command(*arguments), capture_output=True, text=True, check=True).stdout

    async def _ready(self):
        with contextlib.suppress(httpx.TransportError):
            async with self._client() as client:
                return (await client.get("/readyz")).is_success
        return False

    def _client(self):
        file = self.tree / "store" / "api-token"
        token = file.read_text().strip() if file.exists() else ""
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self._port}", headers=headers, timeout=PATIENCE, verify=_NO_TLS
        )

    @contextlib.asynccontextmanager
    async def _patience(self, seen=()):
        try:
            async with asyncio.timeout(PATIENCE):
                yield
        except TimeoutError:
            raise AssertionError(f"nothing more came after {list(seen)}\n{self._log.read_text()}") from None


def finished(events):
    """The messages that are over, once for each time they were."""
    return [message for event in events if event["type"] in FINISHING for message in event["payload"]["messages"]]


def published(events):
    """Session and ordinal of every answer."""
    return [(event["payload"]["session"], event["payload"]["ordinal"]) for event in events if event["type"] == "answer"]


def running(events):
    """Whether a session is known to have its input."""
    return any(event["type"] == "session" and event["payload"]["state"] == "running" for event in events)


def texts(events):
    """What was answered."""
    return [event["payload"]["text"] for event in events if event["type"] == "answer"]
