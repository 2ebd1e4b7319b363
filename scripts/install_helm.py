"""Put helm, by which the chart is tested, beside a virtual environment's other programs.

    python scripts/install_helm.py VENV REQUIREMENTS [UV]
    python scripts/install_helm.py unpack FOLDER PROGRAM

It comes out of a package of the index that Python's come from, with a hash like all of them, so that the tests need
nothing else of the network: a wheel with an npm package in it, with a zip in that, with helm in that. What the wheel
says that it needs (140 MB, for another use of it) is left out. On other systems than Linux on x86-64, for which it has
no helm, nothing is installed, and the tests take the one on the PATH.
"""

import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path


def fetch(folder: Path, python: Path, requirements: Path, uv: str) -> None:
    """Install `requirements` into a folder, and nothing that they need."""
    installer = [uv, "pip", "install", "--python", str(python)] if uv else [str(python), "-m", "pip", "install"]
    options = ["--quiet", "--no-deps", "--require-hashes", "--target", str(folder), "-r", str(requirements)]
    subprocess.run([*installer, *options], check=True)  # noqa: S603


def unpack(folder: Path, program: Path) -> None:
    """Take helm out of what was installed into a folder; there at once, or not at all."""
    (package,) = folder.rglob("lambda-layer-kubectl-*.tgz")
    with tempfile.TemporaryDirectory(dir=program.parent) as beside:
        layer, helm = Path(beside) / "layer.zip", Path(beside) / "helm"
        with tarfile.open(package) as outer:
            found = outer.extractfile("package/lib/layer.zip")
            if found is None:
                raise SystemExit(f"{package.name} has no layer.zip that is a file")
            with found as source, layer.open("wb") as target:
                shutil.copyfileobj(source, target)
        with zipfile.ZipFile(layer) as inner, inner.open("helm/helm") as source, helm.open("wb") as target:
            shutil.copyfileobj(source, target)
        helm.chmod(0o755)
        os.replace(helm, program)


def main(venv: str, requirements: str, uv: str = "") -> None:
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        print("The chart's tests take the helm on the PATH.")  # noqa: T201
        return
    programs = Path(venv) / "bin"
    print(f"Installing helm from {requirements} into {venv}")  # noqa: T201
    with tempfile.TemporaryDirectory(dir=venv) as folder:
        fetch(Path(folder), programs / "python", Path(requirements), uv)
        unpack(Path(folder), programs / "helm")


if __name__ == "__main__":
    if sys.argv[1] == "unpack":
        unpack(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main(*sys.argv[1:])
