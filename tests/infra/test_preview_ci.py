"""The workflow templates of `ci/`: valid, careful with what strangers write, and their scripts run.

`gh` and `pulumi` are stand-ins that keep what they were told; GitLab is a server on loopback that
curl really talks to. Not here: GitHub's and GitLab's own machines.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from tests.support import cluster as support

CI = Path(__file__).resolve().parents[2] / "ci"
RECORDED = Path(__file__).parent / "previews"
WORKFLOWS = sorted((CI / "github").glob("*.yml"))
SCRIPTS = sorted(CI.rglob("*.sh"))
PIPELINE = CI / "gitlab" / ".gitlab-ci.yml"

MARKER = "<!-- nanoclaw-preview: dev -->"


@pytest.fixture(scope="module", autouse=True)
def _programs():
    if missing := [name for name in ("bash", "curl", "git", "jq") if shutil.which(name) is None]:
        support.unavailable(f"not installed: {', '.join(missing)}")


def shell(*command, cwd, status=0, **variables):
    ran = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "HOME": str(cwd)} | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == status, ran.stderr
    return ran.stdout


def program(folder, name, text):
    """A stand-in on a PATH of its own, in front of the usual one."""
    folder.mkdir(exist_ok=True, parents=True)
    (folder / name).write_text(f"#!{sys.executable}\n{text}")
    (folder / name).chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def jobs(workflow):
    return yaml.safe_load(workflow.read_text())["jobs"].values()


def steps(workflow):
    return [step for job in jobs(workflow) for step in job["steps"]]


@pytest.mark.parametrize(
    ("schema", "file"),
    [
        *(pytest.param("github-workflows", file, id=file.name) for file in WORKFLOWS),
        pytest.param("gitlab-ci", PIPELINE, id=PIPELINE.name),
    ],
)
def test_a_template_is_what_its_service_accepts(schema, file):
    transform = ["--data-transform", "gitlab-ci"] if schema == "gitlab-ci" else []
    checker = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *transform, str(file)]

    checked = subprocess.run(checker, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda file: file.name)
def test_a_workflow_puts_nothing_of_a_pull_request_into_a_command_and_asks_for_little(workflow):
    content = yaml.safe_load(workflow.read_text())

    assert content["permissions"] == {"contents": "read"}
    assert "pull_request_target" not in content[True]  # YAML reads the key `on` as a boolean
    for step in steps(workflow):
        assert "${{" not in step.get("run", "")
        assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step.get("uses", "a/b@v1"))
        if step.get("uses", "").startswith("actions/checkout"):
            assert step["with"]["persist-credentials"] is False
    for job in jobs(workflow):
        assert set(job.get("permissions", {})) <= {"contents", "pull-requests"}
        assert job["timeout-minutes"]


def test_the_token_that_comments_is_given_to_the_step_that_comments_alone():
    [given] = [step for step in steps(CI / "github" / "preview.yml") if "GH_TOKEN" in step.get("env", {})]

    assert "ci/github/comment.sh" in given["run"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda file: file.name)
def test_a_script_can_be_read_by_the_shell(script, tmp_path):
    shell("bash", "-n", script, cwd=tmp_path)
    assert script.stat().st_mode & stat.S_IXUSR


def test_the_commands_in_the_templates_can_be_read_by_the_shell(tmp_path):
    pipeline = yaml.safe_load(PIPELINE.read_text())
    commands = [step["run"] for workflow in WORKFLOWS for step in steps(workflow) if "run" in step]
    commands += [line for job in pipeline.values() for line in (*job.get("script", ()), *job.get("before_script", ()))]

    assert len(commands) > 10
    for command in commands:
        shell("bash", "-n", "-c", command, cwd=tmp_path)


@pytest.fixture
def repository(tmp_path):
    """A repository with three stacks and a program, and what commits there."""

    def commit(*files):
        for name in files:
            (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
            with (tmp_path / name).open("a") as file:
                file.write("line\n")
        shell("git", "add", ".", cwd=tmp_path)
        who = ("-c", "user.name=t", "-c", "user.email=t@t.invalid")
        shell("git", *who, "commit", "--quiet", "--message", "x", cwd=tmp_path)
        return shell("git", "rev-parse", "HEAD", cwd=tmp_path).strip()

    shell("git", "init", "--quiet", cwd=tmp_path)
    commit(*(f"stacks/Pulumi.{name}.yaml" for name in ("dev", "local", "production")), "__main__.py")
    return tmp_path, commit


@pytest.mark.parametrize(
    ("changed", "concerned"),
    [
        pytest.param(["stacks/Pulumi.dev.yaml"], ["dev"], id="one stack"),
        pytest.param(["stacks/Pulumi.local.yaml"], [], id="somebody's own"),
        pytest.param(["docs/x.md"], [], id="something else"),
        pytest.param(["runtime/nanoclaw_runtime/domain/a.py", "README.md"], [], id="what the program does not read"),
        pytest.param(["runtime/nanoclaw_runtime/contract/a.py"], ["dev", "production"], id="the contract"),
        pytest.param(["runtime/nanoclaw_runtime/__init__.py"], ["dev", "production"], id="around the contract"),
        pytest.param(["pydantic/__init__.py"], ["dev", "production"], id="a module instead of a library"),
        pytest.param(["policies/__main__.py"], ["dev", "production"], id="the policy pack"),
        pytest.param(["nanoclaw_infra/a.py", "stacks/Pulumi.dev.yaml"], ["dev", "production"], id="the program"),
        pytest.param(
            ["stacks/Pulumi.a;touch b.yaml", "stacks/Pulumi.new.yaml"], ["new"], id="a name that is a command"
        ),
    ],
)
def test_the_stacks_of_a_change_are_found(repository, changed, concerned):
    folder, commit = repository
    base = shell("git", "rev-parse", "HEAD", cwd=folder).strip()
    commit(*changed)

    assert json.loads(shell(CI / "changed-stacks.sh", base, cwd=folder)) == concerned


def test_a_part_of_the_program_that_moves_away_concerns_every_stack(repository):
    folder, commit = repository
    base = commit("nanoclaw_infra/a.py")
    (folder / "docs").mkdir()
    (folder / "nanoclaw_infra/a.py").rename(folder / "docs/a.py")
    commit("docs/other.md")

    assert json.loads(shell(CI / "changed-stacks.sh", base, cwd=folder)) == ["dev", "production"]


def test_without_a_commit_every_stack_is_meant(repository):
    assert json.loads(shell(CI / "changed-stacks.sh", cwd=repository[0])) == ["dev", "production"]


@pytest.mark.parametrize(
    ("recorded", "engine", "status", "told"),
    [
        ("settings-changed", 0, 0, "### Stack `dev`: 2 changed, 1 replaced"),
        ("settings-changed", 137, 2, "The engine failed with status 137"),
        ("group-removed", 0, 1, "Data at risk: 3 not permitted"),
        ("mistake", 255, 2, "needs a tag or a digest"),
        ("nothing", 255, 2, "error: the cluster is away"),
    ],
)
def test_the_preview_script_ends_with_the_status_and_leaves_the_comment_alone(tmp_path, recorded, engine, status, told):
    path = program(
        tmp_path / "bin",
        "pulumi",
        "import pathlib, sys\n"
        "assert sys.argv[1:4] == ['preview', '--stack', 'dev'] and '--json' in sys.argv\n"
        "print('error: the cluster is away', file=sys.stderr)\n"
        f"file = pathlib.Path({str(RECORDED)!r}, {recorded!r} + '.json')\n"
        f"print(file.read_text() if file.exists() else '')\nsys.exit({engine})\n",
    )
    program(
        tmp_path / ".venv" / "bin",
        "nanoclaw-preview",
        "import sys\nfrom nanoclaw_infra.preview import main\nsys.exit(main())",
    )
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    shell(
        CI / "preview.sh",
        "dev",
        "comment.md",
        cwd=tmp_path,
        status=status,
        PATH=path,
        TMPDIR=str(scratch),
        PYTHONPATH=str(CI.parent),
    )

    assert told in (tmp_path / "comment.md").read_text()
    assert not list(scratch.iterdir()), "the JSON holds the whole configuration"


def test_the_kubeconfig_is_readable_by_nobody_else(tmp_path):
    shell(CI / "kubeconfig.sh", cwd=tmp_path, KUBECONFIG_CONTENT="apiVersion: v1")
    written = tmp_path / ".kube" / "config"

    assert written.read_text() == "apiVersion: v1\n"
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    shell(CI / "kubeconfig.sh", cwd=tmp_path, status=1)


GH = """
import json, pathlib, sys
file = pathlib.Path("comments.json")
comments = json.loads(file.read_text())
arguments = sys.argv[2:]
if "--method" not in arguments:
    half = len(comments) // 2
    print(json.dumps(comments[:half])); print(json.dumps(comments[half:]))
    sys.exit()
method, path = arguments[arguments.index("--method") + 1 :][:2]
body = pathlib.Path(arguments[arguments.index("--field") + 1].removeprefix("body=@")).read_text()
if method == "POST":
    assert path == "repos/o/r/issues/7/comments"
    comments.append({"id": len(comments) + 1, "user": {"login": "github-actions[bot]"}, "body": body})
else:
    [found] = [each for each in comments if path == f"repos/o/r/issues/comments/{each['id']}"]
    found["body"] = body
file.write_text(json.dumps(comments))
"""


def test_github_gets_one_comment_a_stack_and_nobody_elses_is_edited(tmp_path):
    path = program(tmp_path / "bin", "gh", GH)
    stored = tmp_path / "comments.json"
    stored.write_text(json.dumps([{"id": 1, "user": {"login": "stranger"}, "body": f"{MARKER} planted"}]))

    def post(stack, text):
        (tmp_path / "comment.md").write_text(f"<!-- nanoclaw-preview: {stack} -->\n\n{text}\n")
        shell(CI / "github" / "comment.sh", "o/r", "7", "comment.md", cwd=tmp_path, PATH=path)
        return [each["body"].splitlines()[-1] for each in json.loads(stored.read_text())]

    planted = f"{MARKER} planted"
    assert post("dev", "first") == [planted, "first"]
    assert post("production", "true") == [planted, "first", "true"]
    assert post("dev", "second @all") == [planted, "second @all", "true"]


@pytest.fixture
def gitlab():
    """The notes of one merge request behind GitLab's paths."""
    notes = [{"id": number, "author": {"id": 5}, "body": "talk"} for number in range(100)]

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            assert self.headers["PRIVATE-TOKEN"] == "a-token"
            url = urllib.parse.urlsplit(self.path)
            fields = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            query = urllib.parse.parse_qs(url.query or fields)
            if url.path == "/user":
                told = {"id": 5}
            elif self.command == "GET":
                first = (int(query["page"][0]) - 1) * 100
                told = notes[first : first + 100]
            elif self.command == "POST":
                told = {"id": len(notes), "author": {"id": 5}, "body": query["body"][0]}
                notes.append(told)
            else:
                told = notes[int(url.path.rsplit("/", 1)[-1])]
                told["body"] = query["body"][0]
            body = json.dumps(told).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = answer  # noqa: N815 (the names of the calls)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", notes
    server.shutdown()
    thread.join()
    server.server_close()


def test_gitlab_gets_one_note_a_stack_and_nobody_elses_is_edited(tmp_path, gitlab):
    url, notes = gitlab
    notes.append({"id": 100, "author": {"id": 6}, "body": f"{MARKER} planted"})
    variables = {"CI_API_V4_URL": url, "CI_PROJECT_ID": "3", "CI_MERGE_REQUEST_IID": "7", "GITLAB_TOKEN": "a-token"}

    def post(text):
        (tmp_path / "comment.md").write_text(f"{MARKER}\n\n{text}\n")
        shell(CI / "gitlab" / "comment.sh", "comment.md", cwd=tmp_path, no_proxy="127.0.0.1", **variables)
        return [note["body"] for note in notes[100:]]

    assert post("50 % & more") == [f"{MARKER} planted", f"{MARKER}\n\n50 % & more\n"]
    assert post("second") == [f"{MARKER} planted", f"{MARKER}\n\nsecond\n"]
