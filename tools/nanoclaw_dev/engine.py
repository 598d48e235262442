"""The Pulumi engine, run in a sealed environment with output a person can follow.

With a state folder nothing of the caller's machine leaks in: home, state and plug-ins are in there,
and no ambient kubeconfig is reachable, only the stack's own. Without one the user's own login and
state are used, for stacks that are not ours to seal. Where the binaries come from is
`engine_binaries`; what is deployed is the checkout's Pulumi program.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nanoclaw_dev.engine_binaries import EngineBinaries
from nanoclaw_dev.errors import SetupError
from nanoclaw_dev.modules import PROVIDER_VERSION
from nanoclaw_dev.paths import CHECKOUT
from nanoclaw_dev.progress import Step

_RESOURCE = re.compile(r"^\s*\S{1,2}\s+(?P<type>[\w.]+:\S+)\s+(?P<name>\S+)\s+(?P<state>[a-z]+)")
_LOCKED = "the stack is currently locked by"
_HOLDER = re.compile(r"\(pid (\d+)\)")
STRAYS_END = 5.0
# Seconds a killed process may take to be gone.
_MARK = "NANOCLAW_ENGINE_STATE"
# By which the processes of an engine are known, whoever of them started it.
_INHERITED = ("HOME", "PATH", "LANG", "LC_ALL", "TMPDIR", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR")
# And whatever names a proxy: a cloud cluster may only be reachable through one.
_PROXIES = ("http_proxy", "https_proxy", "no_proxy")


class EngineFailed(SetupError):
    """The engine refused or failed; the message is its own diagnostics."""


@dataclass(frozen=True)
class Engine:
    """Runs the program of one checkout against the state of one instance."""

    binaries: EngineBinaries
    state: Path | None
    """Folder of the engine's home and of the stacks' state, made when it is missing; None for the user's own."""
    passphrase: str = ""
    """Encrypts what is secret in stack files and state, where these are ours."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """What the stack's settings refer to as `$NAME`."""
    project: Path = CHECKOUT
    """Folder of Pulumi.yaml."""

    def init(self, stack: str) -> None:
        """Make the stack's state, unless it is there."""
        if self.state is not None:
            with _exclusive(self.state / "lock"):
                _repair(self.state, stack)
        known = json.loads(self._run("stack", "ls", "--json"))
        if stack not in {each["name"] for each in known}:
            self._run("stack", "init", stack, "--secrets-provider", "passphrase")

    def set_secret(self, stack: str, path: str, value: str) -> None:
        """Put an encrypted value into the stack file; `path` is a config key, dots lead into objects."""
        self._run("config", "set", "--stack", stack, "--secret", "--path", path, standard_input=value)

    def up(self, stack: str, step: Step) -> None:
        """Create and update until the cluster has what the program declares. Raises EngineFailed."""
        self._followed(step, "up", stack, "--yes", "--skip-preview")

    def destroy(self, stack: str, step: Step) -> None:
        """Delete all but what the stack protects. Raises EngineFailed."""
        self._followed(step, "destroy", stack, "--yes", "--skip-preview", "--exclude-protected")

    def refresh(self, stack: str, step: Step) -> None:
        """Take what is in the cluster over into the state. Raises EngineFailed."""
        self._followed(step, "refresh", stack, "--yes", "--skip-preview")

    def has_drift(self, stack: str) -> bool:
        """Whether the cluster differs from the state in what the stack owns."""
        return bool(_changes(json.loads(self._run("refresh", "--stack", stack, "--preview-only", "--json"))))

    def preview(self, stack: str) -> dict[str, str]:
        """What `up` would change: URN → operation, unchanged resources left out. Raises EngineFailed."""
        return _changes(json.loads(self._run("preview", "--stack", stack, "--json")))

    def show_preview(self, stack: str) -> None:
        """Print what `up` would change, as the engine shows it to a person. Raises EngineFailed."""
        color = "always" if sys.stdout.isatty() else "never"
        command = ("preview", "--stack", stack, "--diff", "--color", color)
        result = subprocess.run(self._command(*command), cwd=self.project, env=self.environment(), check=False)
        if result.returncode:
            raise EngineFailed(f"The preview of stack {stack!r} failed: see above.")

    def outputs(self, stack: str) -> dict[str, Any]:
        """The stack's outputs; there is nothing secret among them."""
        outputs: dict[str, Any] = json.loads(self._run("stack", "output", "--stack", stack, "--json"))
        return outputs

    def resources(self, stack: str) -> list[dict[str, Any]]:
        """What the state knows, as the engine exports it."""
        exported = json.loads(self._run("stack", "export", "--stack", stack))
        resources: list[dict[str, Any]] = exported["deployment"].get("resources", [])
        return resources

    def remove(self, stack: str) -> None:
        """Forget the state of a stack that has no resources any more; its file stays. Raises EngineFailed."""
        self._run("stack", "rm", stack, "--yes", "--preserve-config")
        for backup in _backups(self.state, stack) if self.state is not None else ():
            backup.unlink()

    def end_strays(self) -> None:
        """End what a killed engine of this state left running: its language host does not notice that it is alone."""
        if self.state is None:
            return
        ours = f"{_MARK}={self.state}".encode()
        with _exclusive(self.state / "lock"):
            deadline = time.monotonic() + STRAYS_END
            while strays := _processes_with(ours):
                for process in strays:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process, signal.SIGKILL)
                if time.monotonic() > deadline:
                    return
                time.sleep(0.02)  # the kernel takes a moment

    def environment(self) -> dict[str, str]:
        """Everything the engine sees of its surroundings."""
        if self.state is None:
            # A plug-in on PATH spares the download, and one of the user's own still comes first.
            path = os.pathsep.join([os.environ.get("PATH", ""), str(self.binaries.provider.parent)])
            return dict(os.environ) | dict(self.variables) | {"PATH": path, "PULUMI_SKIP_UPDATE_CHECK": "1"}
        home, backend = self.state / "home", self.state / "stacks"
        _place_plugin(home, self.binaries.provider)
        backend.mkdir(parents=True, exist_ok=True)
        inherited = {
            name: value for name, value in os.environ.items() if name in _INHERITED or name.lower() in _PROXIES
        }
        sealed = {
            "KUBECONFIG": os.devnull,
            _MARK: str(self.state),
            "PULUMI_HOME": str(home),
            # Without metadata beside each file: the engine replaces a state as a whole, but would write
            # those in place, and if it is killed there, no engine can read the state any more.
            "PULUMI_BACKEND_URL": f"file://{backend}?metadata=skip",
            "PULUMI_CONFIG_PASSPHRASE": self.passphrase,
            "PULUMI_SKIP_UPDATE_CHECK": "1",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "1",
            "PULUMI_DISABLE_REGISTRY_RESOLVE": "1",
            "PULUMI_SUPPRESS_NEO_LINK": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",  # the language host lists packages at each run
        }
        return inherited | dict(self.variables) | sealed

    def shell_environment(self) -> dict[str, str]:
        """The same for a person's shell, which is not ours to end."""
        return {name: value for name, value in self.environment().items() if name != _MARK}

    def _command(self, *arguments: str) -> list[str]:
        return [str(self.binaries.cli), *arguments, "--non-interactive"]

    def _run(self, *arguments: str, standard_input: str = "") -> str:
        result = subprocess.run(
            self._command(*arguments),
            cwd=self.project,
            env=self.environment(),
            input=standard_input,
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            raise EngineFailed(_failure(arguments[0], [*result.stdout.splitlines(), *result.stderr.splitlines()]))
        return result.stdout

    def _followed(self, step: Step, command: str, stack: str, *flags: str) -> None:
        if self.state is None:
            self._follow(step, command, "--stack", stack, *flags)
            return
        with _exclusive(self.state / "lock"):
            _repair(self.state, stack)
            try:
                self._follow(step, command, "--stack", stack, *flags)
            except EngineFailed as failed:
                if _LOCKED not in str(failed):
                    raise
                if running := [pid for pid in _HOLDER.findall(str(failed)) if _runs(pid)]:
                    raise EngineFailed(
                        f"A `pulumi` of an earlier command still works on this stack: wait for process {running[0]}."
                    ) from None
                # We alone use this state: the lock is of a run that was killed.
                self._run("cancel", "--stack", stack, "--yes")
                self._follow(step, command, "--stack", stack, *flags)

    def _follow(self, step: Step, *arguments: str) -> None:
        lines: list[str] = []
        finished = 0
        process = subprocess.Popen(
            self._command(*arguments, "--color", "never", "--suppress-outputs", "--suppress-progress"),
            cwd=self.project,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        # Leaving the block waits: after Ctrl-C, which reaches the engine too, it finishes calls under way.
        with process:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line.rstrip())
                if match := _RESOURCE.match(line):
                    finished += match["state"].endswith("d")
                    step.note(f"{finished} done, {match['state']} {match['type'].rsplit(':', 1)[-1]} {match['name']}")
        if process.returncode:
            raise EngineFailed(_failure(arguments[0], lines))


def _runs(process: str) -> bool:
    """It has not ended. What a killed command started is the business of this machine's init, which may never reap."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return False


def _processes_with(variable: bytes) -> list[int]:
    """Who runs with this in the environment and is no zombie, whose environment is empty."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # not ours, or gone meanwhile
            if variable in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
    return found


@contextlib.contextmanager
def _exclusive(lock: Path) -> Iterator[None]:
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _repair(state: Path, stack: str) -> None:
    """Take up the engine's own backup where the stack's state is cut off, as when the machine lost its power.

    What the last step made is missing in it, and is found again: creating is an upsert.
    """
    for backup in _backups(state, stack):
        file = backup.with_suffix("")
        if not _whole(file) and _whole(backup):
            shutil.copyfile(backup, file)


def _backups(state: Path, stack: str) -> list[Path]:
    return list((state / "stacks").glob(f".pulumi/stacks/*/{stack}.json.bak"))


def _whole(file: Path) -> bool:
    try:
        json.loads(file.read_bytes())
    except (FileNotFoundError, ValueError):
        return False
    return True


def _place_plugin(home: Path, provider: Path) -> None:
    place = home / "plugins" / f"resource-kubernetes-v{PROVIDER_VERSION}" / provider.name
    if place.exists() and place.samefile(provider):
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    place.symlink_to(provider)


def _changes(told: Mapping[str, Any]) -> dict[str, str]:
    steps: Iterable[Mapping[str, str]] = told.get("steps", ())
    return {step["urn"]: step["op"] for step in steps if step["op"] not in {"same", "read", "refresh"}}


def _failure(command: str, lines: list[str]) -> str:
    """The diagnostics among the engine's output, or all of it when it has none."""
    kept = list[str]()
    inside = False
    for line in lines:
        if line.rstrip() in {"Diagnostics:", "Outputs:", "Resources:"}:
            inside = line.startswith("Diagnostics")
        elif inside and line.strip():
            kept.append(line)
    text = "\n".join(kept or [line for line in lines if line.strip()])
    return f"`pulumi {command}` failed:\n{text}"
