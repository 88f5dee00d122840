"""The programs that no wheel brings: where they are found, and how Debian installs them."""

import os
import shutil
import subprocess
import sysconfig

DEBIAN = {"wrk": "wrk", "nginx": "nginx", "haproxy": "haproxy"}  # program -> package


class SkipError(Exception):
    """A proxy or a tool cannot take part; the message says why."""


def find(program: str, hint: str = "") -> str:
    """Look on PATH, beside the interpreter, and in sbin (which a user's PATH may lack)."""
    places = [os.environ.get("PATH", ""), sysconfig.get_path("scripts")]
    places += ["/usr/sbin", "/usr/local/sbin"]
    path = shutil.which(program, path=os.pathsep.join(places))
    if path is None:
        raise SkipError(f"{program} not installed ({hint or f'Debian package {DEBIAN[program]}'})")
    return path


def install_missing() -> None:
    """Install the Debian packages that are missing, as root; else exit with the command to run."""
    missing = [package for program, package in DEBIAN.items() if not is_installed(program)]
    if not missing:
        return
    command = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise SystemExit(f"missing: {', '.join(missing)}; run: sudo {' '.join(command)}")
    print(f"installing {', '.join(missing)}", flush=True)
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-q"], check=True, env=quiet)
    subprocess.run(command, check=True, env=quiet)


def is_installed(program: str) -> bool:
    try:
        find(program)
    except SkipError:
        return False
    return True
