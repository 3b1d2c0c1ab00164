"""Makes the secrets of the production set: ``python3 deploy/make-secrets.py``.

One file each in ``deploy/secrets``; what is there already stays. Nothing but Python is
needed.
"""

import base64
import hashlib
import os
import secrets
import sys
from pathlib import Path

PLAIN = (
    "influx_token", "influx_password", "postgres_password", "grafana_password",
    "mqtt_password",
)  # fmt: skip
ROUNDS = 101
"""Of PBKDF2 over SHA-512, as mosquitto_passwd takes them."""


def mosquitto_line(user: str, password: str) -> str:
    """A line of Mosquitto's password file."""
    salt = os.urandom(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, ROUNDS)
    parts = (base64.b64encode(part).decode() for part in (salt, digest))
    return f"{user}:$7${ROUNDS}${'$'.join(parts)}\n"


def make(folder: Path) -> list[Path]:
    """Make what is missing; returns what was made."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = []
    for name in PLAIN:
        path = folder / name
        if not path.exists():
            path.write_text(secrets.token_urlsafe(32), "ascii")
            made.append(path)
    hashed = folder / "mqtt_passwords"
    if not hashed.exists() or folder / "mqtt_password" in made:
        password = (folder / "mqtt_password").read_text("ascii")
        hashed.write_text(mosquitto_line("duha", password), "ascii")
        made.append(hashed)
    for path in made:
        # Containers read them as users of their own; the folder keeps others out.
        path.chmod(0o444)
    return made


if __name__ == "__main__":
    for written in make(Path(__file__).parent / "secrets"):
        print(written)
    sys.exit(0)
