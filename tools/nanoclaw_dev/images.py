"""The two images of the project, as archives a node can import, built once for each content.

The tag of an image is the hash of what goes in, so unchanged content means no work and a changed
image is another name: nothing is ever overwritten on a node. Base image, layers and downloads lie
in the cache; the user's own container storage is not touched. Pushing to a registry is not done
here: the Containerfiles say how.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nanoclaw_dev import system
from nanoclaw_dev.errors import SetupError
from nanoclaw_dev.locks import exclusive
from nanoclaw_dev.paths import CACHE, CHECKOUT
from nanoclaw_dev.progress import Progress

ARCHIVES = CACHE / "images"
STORAGE = CACHE / "containers"
KEPT = 3
# Archives of each image that stay: switching between branches does not rebuild.

REQUIREMENTS = CHECKOUT / "requirements" / "runtime.txt"
IGNORE_FILE = CHECKOUT / "runtime" / ".containerignore"

BASE_NAME = "localhost/nanoclaw-base"
PYTHON = "3.11"
# Of both bases: Debian 12 has it, and the Containerfiles' default names it.
DEBIAN = "bookworm"
DEBIAN_PACKAGES = "python3,python3-venv,ca-certificates,libstdc++6"  # the last for greenlet, which SQLAlchemy needs
DEBIAN_LEFT_OUT = (
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/locale/*",
    "/usr/share/i18n/*",
    "/usr/lib/*/gconv/*",
)
DEBIAN_HOOKS = (
    # Perl is only there for the packages' own installation scripts.
    "rm -rf $1/usr/share/perl $1/usr/lib/*-linux-gnu/perl $1/usr/lib/*-linux-gnu/libperl.so* $1/var/cache/*",
    # Byte code that needs no file times, for the same reason as in the Containerfiles.
    f"chroot $1 python3 -m compileall -q -f --invalidation-mode unchecked-hash /usr/lib/python{PYTHON}",
)

GLIBC_MINORS = (36, 35, 34, 31, 28, 27, 24, 17, 12, 5)
# Wheels built for these C libraries, or older ones, run on the base.


@dataclass(frozen=True)
class Image:
    """An image as a docker-archive file."""

    name: str
    """`nanoclaw-runtime` or `nanoclaw-echo-agent`."""
    reference: str
    archive: Path


@dataclass(frozen=True)
class Recipe:
    """What an image is made of, relative to the checkout."""

    name: str
    containerfile: str
    sources: tuple[str, ...]
    packages: str | None = None
    """The stage that installs Python packages, when there is one."""

    def key(self) -> str:
        """Twelve hex digits that change when anything that goes into the image does."""
        digest = hashlib.sha256(_base_recipe().encode())
        for path in _files(CHECKOUT / source for source in (self.containerfile, *self.sources)):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(CHECKOUT)}\0{path.stat().st_mode & 0o111}\0{len(content)}\0".encode())
            digest.update(content)
        return digest.hexdigest()[:12]

    def image(self) -> Image:
        key = self.key()
        return Image(self.name, f"localhost/{self.name}:{key}", ARCHIVES / f"{self.name}-{key}.tar")


RUNTIME = Recipe(
    "nanoclaw-runtime",
    "runtime/Containerfile",
    ("requirements/runtime.txt", "runtime/nanoclaw_runtime"),
    packages="dependencies",
)
ECHO_AGENT = Recipe("nanoclaw-echo-agent", "runtime/echo_agent/Containerfile", ("runtime/echo_agent",))
RECIPES = (RUNTIME, ECHO_AGENT)


def build_images(progress: Progress) -> list[Image]:
    """The controller's image and the echo agent's, in this order; built if their content is new.

    Two callers at once are safe. Raises SetupError with the builder's last words.
    """
    images = [recipe.image() for recipe in RECIPES]
    if not all(_there(image) for image in images):
        system.check_root()
        system.install_missing(system.IMAGE_PACKAGES, progress)
        with exclusive(ARCHIVES / "build.lock", progress, "Waiting for another build of the images"):
            images = [_built(recipe, progress) for recipe in RECIPES]
            _prune()
    return images


def _there(image: Image) -> bool:
    """The archive is there, and stays: from now on it is not what was unused for longest."""
    try:
        os.utime(image.archive)
    except FileNotFoundError:
        return False
    return True


def _built(recipe: Recipe, progress: Progress) -> Image:
    """The image of what the sources are now: built again where somebody changed them meanwhile. Needs the lock."""
    while not _there(image := recipe.image()):
        partial = image.archive.with_suffix(".partial")
        _build(recipe, image, partial, progress)
        if recipe.image() == image:
            partial.rename(image.archive)
        else:
            partial.unlink()
    return image


def _build(recipe: Recipe, image: Image, partial: Path, progress: Progress) -> None:
    base = _base(progress)
    # No --timestamp: with it this buildah writes layers but never finds them again.
    command = ["bud", "--layers", "--force-rm", "--isolation", "chroot"]
    command += ["--file", recipe.containerfile, "--ignorefile", str(IGNORE_FILE)]
    if base:
        command += ["--build-arg", f"BASE={base}"]
    if recipe.packages:
        command += ["--build-context", f"wheels={_wheels(progress)}"]
    with progress.step(f"Building the image {recipe.name}") as step:
        if recipe.packages:
            # With a name of its own the stage outlives the next pruning.
            step.note("Python packages")
            _buildah(*command, "--target", recipe.packages, "--tag", f"localhost/{recipe.name}-packages", str(CHECKOUT))
            step.note("code")
        _buildah(*command, "--tag", image.reference, str(CHECKOUT))
        step.note("writing the archive")
        partial.unlink(missing_ok=True)
        _buildah("push", "--quiet", image.reference, f"docker-archive:{partial}:{image.reference}")


def _base(progress: Progress) -> str | None:
    """The base made from Debian's own packages, or None where the Containerfiles' default is used."""
    if shutil.which("apt-get") is None:
        return None
    reference = f"{BASE_NAME}:{hashlib.sha256(_base_recipe().encode()).hexdigest()[:12]}"
    if _run_buildah("inspect", "--type", "image", reference).returncode == 0:
        return reference
    title = f"Building the base image (Debian {DEBIAN} and Python {PYTHON}, about half a minute)"
    with progress.step(title) as step, tempfile.TemporaryDirectory(prefix="base-", dir=ARCHIVES) as scratch:
        command = ["mmdebstrap", "--quiet", "--variant=essential", f"--include={DEBIAN_PACKAGES}"]
        command += [f"--dpkgopt=path-exclude={path}" for path in DEBIAN_LEFT_OUT]
        command += [f"--customize-hook={hook}" for hook in DEBIAN_HOOKS] + _apt_proxy()
        _run([*command, DEBIAN, f"{scratch}/base.tar", *_mirror()], "mmdebstrap")
        step.note("importing")
        (Path(scratch) / "Containerfile").write_text('FROM scratch\nADD base.tar /\nCMD ["python3"]\n')
        _buildah("bud", "--quiet", "--tag", reference, scratch)
    # One base is enough: images that were built on an older one keep its layer.
    listed = _run_buildah("images", "--format", "{{.Name}}:{{.Tag}}", "--filter", f"reference={BASE_NAME}")
    for older in listed.stdout.split():
        if older != reference:
            _run_buildah("rmi", older)
    return reference


def _base_recipe() -> str:
    """Everything that decides what is in the base image."""
    return repr([platform.machine(), DEBIAN, DEBIAN_PACKAGES, DEBIAN_LEFT_OUT, DEBIAN_HOOKS])


def _mirror() -> list[str]:
    """Where this machine gets Debian from, so that what works for apt works here; else mmdebstrap knows a place."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(ORIGIN) $(RELEASE) $(COMPONENT) $(SITE)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=False,
    )
    for line in listed.stdout.splitlines():
        origin, release, component, site = line.split()
        if origin == "Debian" and component == "main" and "-" not in release:
            return [site]
    return []


def _apt_proxy() -> list[str]:
    command = ["apt-config", "shell", "PROXY", "Acquire::http::Proxy"]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    value = found.removeprefix("PROXY=").strip("'")
    return [f'--aptopt=Acquire::http::Proxy "{value}"'] if value else []


def _wheels(progress: Progress) -> Path:
    """A folder with every package of the lock as a wheel for the base's Python, by this machine's own pip."""
    key = hashlib.sha256(REQUIREMENTS.read_bytes() + platform.machine().encode()).hexdigest()[:12]
    place = ARCHIVES / f"wheels-{key}"
    if not place.is_dir():
        with progress.step("Downloading the controller's Python packages"):
            partial = Path(tempfile.mkdtemp(prefix=".wheels-", dir=ARCHIVES))
            try:
                command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
                command += ["--require-hashes", "--no-deps", "--only-binary=:all:"]
                command += ["--python-version", PYTHON, "--implementation", "cp", *_platforms()]
                _run([*command, "--requirement", str(REQUIREMENTS), "--dest", str(partial)], "pip download")
                partial.rename(place)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    os.utime(place)
    return place


def _platforms() -> list[str]:
    machine = platform.machine()
    tags = [f"manylinux_2_{minor}_{machine}" for minor in GLIBC_MINORS] + [f"manylinux2014_{machine}"]
    return [option for tag in tags for option in ("--platform", tag)]


def _prune() -> None:
    """Drop what was not used for longest: archives, their layers, and downloads of older locks. Needs the lock."""
    for recipe in RECIPES:
        for archive in _oldest_first(f"{recipe.name}-*.tar")[:-KEPT]:
            tag = archive.stem.removeprefix(f"{recipe.name}-")
            _run_buildah("rmi", f"localhost/{recipe.name}:{tag}")
            archive.unlink()
    for folder in _oldest_first("wheels-*")[:-1]:
        shutil.rmtree(folder)
    _run_buildah("rm", "--all")  # what interrupted builds left; nobody else builds now
    _run_buildah("rmi", "--prune")


def _oldest_first(pattern: str) -> list[Path]:
    return sorted(ARCHIVES.glob(pattern), key=lambda path: path.stat().st_mtime)


def _files(places: Iterator[Path]) -> list[Path]:
    found = set[Path]()
    for place in places:
        found.update([place] if place.is_file() else (path for path in place.rglob("*") if path.is_file()))
    return sorted(path for path in found if "__pycache__" not in path.parts)


def _buildah(*arguments: str) -> None:
    result = _run_buildah(*arguments)
    if result.returncode:
        raise SetupError(f"`buildah {arguments[0]}` failed: {_last_words(result.stdout + result.stderr)}.")


def _run_buildah(*arguments: str) -> subprocess.CompletedProcess[str]:
    # A mount namespace of its own: whatever happens to it, no mount stays behind.
    places = ["--root", str(STORAGE / "storage"), "--runroot", str(STORAGE / "run")]
    command = ["unshare", "--mount", "buildah", *places, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _run(command: Sequence[str], name: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SetupError(f"`{name}` failed: {_last_words(result.stderr)}.")


def _last_words(text: str) -> str:
    return " ".join(text.split())[-500:] or "it said nothing"
