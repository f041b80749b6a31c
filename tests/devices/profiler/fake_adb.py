"""A stand-in for Android's `adb`: the commands and messages of the real one, run on a folder of this machine.

FAKE_ADB_DEVICES is `SERIAL=STATE,...`; FAKE_ADB_ROOT is the folder that stands for /data/local/tmp. The messages for an
unknown device are those of adb 29.0.6 (Debian 12), which was asked; those for other states are from its sources.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

SCRATCH = "/data/local/tmp"
ROOT = os.environ["FAKE_ADB_ROOT"]
DEVICES = dict(pair.split("=") for pair in os.environ["FAKE_ADB_DEVICES"].split(",") if pair)
REFUSALS = {
    "offline": "device offline",
    "unauthorized": "device unauthorized.\nThis adb server's $ADB_VENDOR_KEYS is not set\n"
    "Try 'adb kill-server' if that seems wrong.\nOtherwise check for a confirmation dialog on your device.",
}


def main(arguments: list[str]) -> int:
    if arguments == ["devices"]:
        print("List of devices attached")
        for serial, state in DEVICES.items():
            print(f"{serial}\t{state}")
        print()
        return 0
    if arguments[:1] != ["-s"] or len(arguments) < 3:
        print("adb: usage: unknown command", file=sys.stderr)
        return 1
    serial, command, rest = arguments[1], arguments[2], arguments[3:]
    state = DEVICES.get(serial)
    if state != "device":
        message = f"device '{serial}' not found" if state is None else REFUSALS[state]
        prefix = "adb: error: failed to get feature set: " if command == "push" else "error: "
        print(prefix + message, file=sys.stderr)
        return 1
    return {"shell": shell, "push": push}[command](rest)


def shell(words: list[str]) -> int:
    """The words, joined by spaces, are a line of the device's shell; its exit code is adb's."""
    script = " ".join(words).replace(SCRATCH, ROOT)
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE) as process:
        for line in process.stdout or ():
            sys.stdout.buffer.write(line.replace(ROOT.encode(), SCRATCH.encode()))
            sys.stdout.buffer.flush()
    return process.returncode


def push(words: list[str]) -> int:
    """Copy; into the remote path where that is a folder."""
    local, remote = Path(words[0]), Path(words[1].replace(SCRATCH, ROOT))
    target = remote / local.name if remote.is_dir() else remote
    try:
        if local.is_dir():
            shutil.copytree(local, target)
        else:
            shutil.copyfile(local, target)
    except OSError as error:
        print(f"adb: error: failed to copy '{local}' to '{words[1]}': remote {error.strerror}", file=sys.stderr)
        return 1
    print(f"{local}: 1 file pushed, 0 skipped.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
