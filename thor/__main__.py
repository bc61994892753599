"""``python3 -m thor``: on a machine with Python and this checkout, nothing else.

Makes .venv with the pinned requirements where it is missing or older than requirements.txt, and goes on in it.
Standard library only, and no syntax that an older Python would stumble over before it can be refused.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
REQUIREMENTS = ROOT / "requirements.txt"
STAMP = VENV / "installed"


def _main() -> None:
    if sys.version_info < (3, 11):  # noqa: UP036 - this is where it is refused
        found = ".".join(map(str, sys.version_info[:2]))
        sys.exit(f"thor: expected Python 3.11 or later, found {found} ({sys.executable})")
    if not _installed():
        # The lock lies on the directory itself and leaves no file; whoever comes second finds the work done.
        checkout = os.open(ROOT, os.O_RDONLY)
        fcntl.flock(checkout, fcntl.LOCK_EX)
        if not _installed():
            _install()
        os.close(checkout)
        _go_on()
    if Path(sys.prefix).resolve() != VENV.resolve():
        _go_on()
    from thor.cli import main

    main()


def _go_on() -> None:
    # The checkout is found from wherever we were called.
    others = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part and part != str(ROOT)]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *others])
    os.execv(PYTHON, [str(PYTHON), "-m", "thor", *sys.argv[1:]])


def _wanted() -> str:
    # The place belongs to it: the scripts of a venv name its path, and a moved one is made anew.
    return hashlib.sha256(REQUIREMENTS.read_bytes() + os.fsencode(ROOT)).hexdigest()


def _installed() -> bool:
    return PYTHON.exists() and STAMP.exists() and STAMP.read_text().strip() == _wanted()


def _install() -> None:
    if importlib.util.find_spec("ensurepip") is None:
        sys.exit(
            f"thor: expected a Python with ensurepip, to make .venv; found {sys.executable} without: install it "
            "(Debian, Ubuntu: apt install python3-venv)"
        )
    print(f"thor: installing into {VENV}, once …", flush=True)
    wanted = _wanted()
    if PYTHON.exists() and STAMP.exists():
        STAMP.unlink()
    else:
        # Without its stamp a venv is half made, and files of unknown state are no ground to build on.
        if VENV.is_symlink():
            sys.exit(f"thor: expected {VENV} to be a directory of its own, found a symbolic link")
        shutil.rmtree(VENV, ignore_errors=True)
        base = getattr(sys, "_base_executable", None) or sys.executable
        _run("making a virtual environment", [base, "-m", "venv", str(VENV)], {})
    scratch = VENV / "tmp"
    scratch.mkdir(exist_ok=True)
    pip = [str(PYTHON), "-m", "pip", "install", "--no-cache-dir", "--disable-pip-version-check", "--no-input"]
    pip += ["--progress-bar", "off", "-r", str(REQUIREMENTS)]
    _run("installing requirements.txt", pip, {"TMPDIR": str(scratch), "PIP_ROOT_USER_ACTION": "ignore"})
    shutil.rmtree(scratch, ignore_errors=True)
    new = STAMP.with_suffix(".new")
    new.write_text(f"{wanted}\n")
    new.replace(STAMP)
    print("thor: installed", flush=True)


def _run(what: str, command: list[str], environment: dict[str, str]) -> None:
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME", "PIP_USER")}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**env, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    said = []
    for line in process.stdout or ():
        said.append(line.strip())
        if said[-1].startswith(("Collecting ", "Installing collected")):
            print("  " + said[-1].split(" (from")[0][:100], flush=True)
    if process.wait():
        said = [line for line in said if line]
        errors = [line for line in said if line.upper().startswith("ERROR")] or said or ["no output"]
        sys.exit(f"thor: {what} failed: {' · '.join(errors[-2:])}")


if __name__ == "__main__":
    try:
        _main()
    except KeyboardInterrupt:
        sys.exit("thor: interrupted")
    except OSError as problem:
        sys.exit(f"thor: {problem}")
