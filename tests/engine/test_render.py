"""Rendering a stack with the real engine and no cluster: the same objects, in a folder that is whole or untouched."""

from __future__ import annotations

import io

import pytest
import yaml

from nanoclaw_dev import engine_binaries, render
from nanoclaw_dev.errors import SetupError
from nanoclaw_dev.paths import CHECKOUT
from nanoclaw_dev.progress import Progress
from nanoclaw_infra.settings.secrets import CREDENTIALS
from tests.infra.recording import configuration, manifests, record

pytestmark = pytest.mark.engine


def rendered(stack, out):
    render.render(Progress(io.StringIO()), stack, str(out))
    return {file.name: file.read_text() for file in out.iterdir()}


@pytest.fixture(scope="module")
def dev(binaries, tmp_path_factory):
    """The stack `dev` as it was rendered once, for tests that leave it so."""
    out = tmp_path_factory.mktemp("dev") / "out"
    return out, rendered("dev", out)


def declared(stack):
    """What the program registers, where generated names end in what the recording gives all of them."""
    for each in record(stack, configuration(stack)):
        for manifest in manifests([each]):
            manifest["metadata"].setdefault("name", f"{each.name}-0a1b2c3d")
            yield manifest


def of_files(texts):
    """The objects in these files, with the recording's generated names."""
    whole = "---\n".join(texts)
    for each in yaml.safe_load_all(whole):
        name = each["metadata"]["name"]
        if each["kind"] == "ConfigMap" and each.get("immutable"):
            whole = whole.replace(name, f"{name.rpartition('-')[0]}-0a1b2c3d")
    return yaml.safe_load_all(whole)


def comparable(objects):
    """Kind and name → the object, without the annotations that only Pulumi reads."""
    found = {}
    for each in objects:
        annotations = each["metadata"].pop("annotations", {})
        kept = {key: value for key, value in annotations.items() if not key.startswith("pulumi.com/")}
        each["metadata"] |= {"annotations": kept} if kept else {}
        found[each["kind"], each["metadata"]["name"]] = each
    return found


@pytest.mark.parametrize("stack", ["production", "openshift"])
def test_what_is_rendered_is_what_the_stack_declares_and_no_secret(stack, binaries, tmp_path):
    files = rendered(stack, tmp_path / "out")
    expected = comparable(declared(stack))
    secrets = {name for kind, name in expected if kind == "Secret"}

    readme = files.pop("README.md")
    found = comparable(of_files(files.values()))
    assert found == {key: value for key, value in expected.items() if key[0] != "Secret"}
    assert len(found) == len(files)
    assert secrets
    assert all(f"kubectl create secret generic {name} -n " in readme for name in secrets)
    assert min(files).startswith("0-namespace-"), "it is applied before what lives in it"
    assert max(files).startswith("2-deployment-"), "and what needs the rest behind it"
    assert not any("pulumi.com" in text for text in files.values())


def test_a_second_time_gives_the_same_files_and_takes_what_is_no_longer_there(dev):
    out, first = dev
    (out / "1-service-of-yesterday.yaml").write_text("kind: Service")

    assert rendered("dev", out) == first
    assert [each.name for each in out.parent.iterdir()] == ["out"], "nothing half done is left beside it"


def test_encrypted_values_are_neither_needed_nor_written(binaries, tmp_path, monkeypatch):
    monkeypatch.setattr(render, "CHECKOUT", tmp_path)
    (tmp_path / "stacks").mkdir()
    for part in ("Pulumi.yaml", "__main__.py"):
        (tmp_path / part).symlink_to(CHECKOUT / part)
    stack = yaml.safe_load((CHECKOUT / "stacks" / "Pulumi.dev.yaml").read_text())
    stack["config"][CREDENTIALS] = {"ANTHROPIC_API_KEY": {"secure": "v1:AAAAAAAAAAAAAAAA:nobody+can+read+this"}}
    stack["config"]["nanoclaw:apiToken"] = {"secure": "v1:AAAAAAAAAAAAAAAA:nor+this"}
    text = yaml.safe_dump(
        stack | {"encryptionsalt": "v1:/7k7Dd9S7gA=:v1:CH0uGwiPndyojRcv:Hgh+3cu6WcMLwlXccRIMr8/Hnx7pow=="}
    )
    file = tmp_path / "stacks" / "Pulumi.dev.yaml"
    file.write_text(text)

    files = rendered("dev", tmp_path / "out")

    assert "nanoclaw-credentials -n nanoclaw-dev --from-literal=ANTHROPIC_API_KEY=…" in files["README.md"]
    assert "secretName: nanoclaw-credentials" in files["2-deployment-nanoclaw-controller.yaml"]
    assert not any("kind: Secret\n" in each for each in files.values())
    assert file.read_text() == text, "the stack's own file stays as it is"


def test_a_stack_that_is_refused_leaves_the_folder_as_it_was(dev):
    out, _ = dev
    before = {file.name: file.stat().st_mtime_ns for file in out.iterdir()}
    document = yaml.safe_load((CHECKOUT / "stacks" / "Pulumi.dev.yaml").read_text())
    del document["config"]["nanoclaw:settings"]["controller"]

    with pytest.raises(SetupError, match=r"nanoclaw:settings.controller is missing"):
        render.rendered(engine_binaries.present(), "dev", document, Step())
    assert {file.name: file.stat().st_mtime_ns for file in out.iterdir()} == before


class Step:
    def note(self, text):
        """Nobody looks."""


def test_an_unknown_stack_is_told_with_those_there_are(tmp_path):
    with pytest.raises(SetupError, match=r"no stack 'prod' in .*: name one of bridge, dev, .*production.* by STACK=…"):
        render.render(Progress(io.StringIO()), "prod", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_folder_of_somebody_else_is_never_replaced(tmp_path):
    (tmp_path / "README.md").write_text("# Our manifests\n")

    with pytest.raises(SetupError, match=r"no folder that was rendered: name another one by OUT=…"):
        render.render(Progress(io.StringIO()), "dev", str(tmp_path))
    assert [each.name for each in tmp_path.iterdir()] == ["README.md"]
