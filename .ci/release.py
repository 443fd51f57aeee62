"""Make what is handed out: the bundles as zip files, and the wheel.

    python .ci/release.py bundles|wheel [--commit COMMIT] [--output_dir dist]

Both are made of a commit and nothing else: what is not committed is left out, and the same commit gives the same bytes.
"""

import argparse
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
BEGINNING = (1980, 1, 1, 0, 0, 0)
"""The first moment that a zip file can tell; a bundle that did not change between two commits stays the same."""


def bundles(commit: str, output_dir: Path) -> list[Path]:
    """Write every bundle as NAME_vVERSION.zip with the one folder NAME, as the MONAI model zoo does."""
    written = []
    with exported(commit, "bundles") as tree:
        for metadata in sorted(tree.glob("bundles/*/configs/metadata.json")):
            root = metadata.parents[1]
            version = json.loads(metadata.read_text(encoding="utf-8"))["version"]
            written.append(output_dir / f"{root.name}_v{version}.zip")
            partial = written[-1].with_suffix(".partial")
            with zipfile.ZipFile(partial, "w") as archive:
                for path in sorted(path for path in root.rglob("*") if path.is_file()):
                    entry = zipfile.ZipInfo(path.relative_to(root.parent).as_posix(), BEGINNING)
                    entry.create_system, entry.external_attr = 3, 0o100644 << 16
                    # stored: compressed bytes depend on the zlib at hand, and weights hardly shrink
                    archive.writestr(entry, path.read_bytes())
            partial.replace(written[-1])
    return written


def wheel(commit: str, output_dir: Path) -> list[Path]:
    """Build the wheel with the setuptools of this environment, which constraints.txt pins."""
    moment = git("show", "--no-patch", "--format=%ct", commit).decode().strip()
    environment = {**os.environ, "SOURCE_DATE_EPOCH": moment, "PYTHONHASHSEED": "0"}
    with exported(commit, ".") as tree, tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
        command += ["--no-deps", "--no-build-isolation", "--wheel-dir", folder, str(tree)]
        subprocess.run(command, check=True, env=environment, umask=0o022)
        (built,) = Path(folder).glob("*.whl")
        written = output_dir / built.name
        shutil.copyfile(built, written.with_suffix(".partial"))
        written.with_suffix(".partial").replace(written)
    return [written]


@contextmanager
def exported(commit: str, part: str) -> Iterator[Path]:
    """The files of a commit in a folder of their own, which is removed at the end."""
    content = git("-c", "tar.umask=0022", "archive", "--format=tar", commit, part)
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            # Python 3.10 and 3.11 have filters from some patch release on; what git packs itself needs none
            archive.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
        yield Path(folder)


def git(*arguments: str) -> bytes:
    """What git says, run in this repository."""
    return subprocess.run(["git", "-C", str(REPOSITORY), *arguments], check=True, stdout=subprocess.PIPE).stdout


def main() -> None:
    """Make what is asked for, and say what it is."""
    made = {"bundles": bundles, "wheel": wheel}
    parser = argparse.ArgumentParser(
        description="Make what is handed out, of a commit and nothing else.", allow_abbrev=False
    )
    parser.add_argument("what", choices=made)
    parser.add_argument("--commit", default="HEAD", help="default: %(default)s")
    parser.add_argument("--output_dir", type=Path, default=REPOSITORY / "dist", help="default: %(default)s")
    arguments = parser.parse_args()
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    if git("status", "--porcelain", "--untracked-files=no"):
        print(f"what is not committed is left out: made of {arguments.commit}", file=sys.stderr)
    for path in made[arguments.what](arguments.commit, arguments.output_dir):
        print(f"{path}  {path.stat().st_size} bytes, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main()
