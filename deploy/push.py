"""`landbridge deploy push`: a bundle onto a robot's computer, checked there, and only then the one that runs next.

    ROOT/python                 starts Python with ROS 2 and landbridge, for the units and for the checks made here
    ROOT/parameters.yaml        ROS 2 parameters of the units; says which robot this is
    ROOT/releases/<digest>/     bundle/, systemd/ and, if --public-key was given, key.pub, by which a rollback checks it
                                again; a bundle with another signature is another release, so that none which runs is
                                ever written to
    ROOT/current, ROOT/previous symbolic links to releases/<digest>

`deploy/jetson` says how ROOT comes to be. Everything goes through ssh and rsync; nothing here needs to be root there.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yaml

from landbridge.bundle import SIGNATURE, Bundle, read_bundle
from landbridge.deploy.supervisor import COMMANDED, RECOVERIES
from landbridge.errors import InputError
from landbridge.onnx_session import CPU
from landbridge.signature import require_signature

PARAMETERS = "parameters.yaml"
KEY, UNPROVEN_KEY = "key.pub", "key.pub.new"  # of a release: what it must be signed by, and what it is being checked by
UNITS = Path(__file__).parent / "jetson" / "systemd"
MOVING = {state.value for state in (*COMMANDED, *RECOVERIES)}
CONNECT_SECONDS = 10
SILENCE_SECONDS = 15  # without an answer from a robot that was there: its battery, or the radio
LISTEN_SECONDS = 5.0  # for the supervisor's state, on a computer that is busy
NO_CONNECTION = 255  # ssh's own exit code
# Each link is replaced by a rename, so that at every moment it leads to one whole release; `previous` first, so that a
# switch that was cut off between them is done whole when it is asked for again. One command a line: `set -e` does not
# see a failure on the left of `&&`. What it leads to is on the disk by then: a robot may lose power any time.
SWITCH = """set -e
sync
old=$(readlink current || true)
[ "$old" = "$1" ] && exit
if [ -n "$old" ]; then
    ln -sfn "$old" previous.new
    mv -T previous.new previous
fi
ln -sfn "$1" current.new
mv -T current.new current
sync"""


class Remote:
    """The robot's computer: commands over ssh, in a shell that is not a login shell.

    Args:
        host: As ssh takes it.
        root: Absolute folder there.
        ssh: The ssh command with its options.
    """

    def __init__(self, host: str, root: str, ssh: str) -> None:
        self.host, self.root = host, root
        alive = f"ServerAliveInterval={SILENCE_SECONDS // 3}"  # asked up to three times, ServerAliveCountMax
        try:
            self._ssh = [*shlex.split(ssh), "-o", f"ConnectTimeout={CONNECT_SECONDS}", "-o", alive]
        except ValueError as error:
            raise InputError("--ssh", f"{ssh!r}: {error}", "quote it as a shell would have it") from error

    def run(self, *command: str, remedy: str) -> str:
        """Standard output of a command there; raises InputError with its message if it fails."""
        return self._local([*self._ssh, self.host, shlex.join(command)], remedy)

    def landbridge(self, *arguments: str, remedy: str) -> dict[str, Any]:
        """Figures of a `landbridge` command there."""
        text = self.run(f"{self.root}/python", "-m", "landbridge", *arguments, "--json", remedy=remedy)
        try:
            return dict(json.loads(text))
        except ValueError as error:
            raise InputError(self.host, f"answered {text[:80]!r}", "let its shell print nothing of its own") from error

    def send(self, folder: Path, release: str) -> None:
        """Make `release` there equal to a folder here, but for its key."""
        self.run("mkdir", "-p", f"{self.root}/releases", remedy=f"make {self.root} there, owned by that user")
        self._copy(f"{folder}/", f"{release}/", "--delete", f"--exclude=/{KEY}")

    def send_key(self, key: Path, release: str) -> str:
        """Put the public key by which `release` is to be checked beside it; returns its path there."""
        self._copy(str(key), f"{release}/{UNPROVEN_KEY}")
        return f"{self.root}/{release}/{UNPROVEN_KEY}"

    def _copy(self, here: str, there: str, *options: str) -> None:
        always = ("--archive", "--copy-links", "--checksum", "--chmod=D755,F644", "--rsh", shlex.join(self._ssh))
        self._local(
            ["rsync", *always, *options, here, f"{self.host}:{self.root}/{there}"], "install rsync on both machines"
        )

    def link(self, name: str) -> str:
        """Where the link `name` in ROOT leads; "" if there is none."""
        return self.run("sh", "-c", f"readlink {shlex.quote(f'{self.root}/{name}')} || true", remedy="").strip()

    def has(self, path: str) -> bool:
        """Whether there is such a file in ROOT."""
        asked = f"test -f {shlex.quote(f'{self.root}/{path}')} && echo yes || true"
        return bool(self.run("sh", "-c", asked, remedy="").strip())

    def parameters(self) -> dict[str, str]:
        """Those of the policy node there, by name; raises InputError if there are none."""
        path = f"{self.root}/{PARAMETERS}"
        text = self.run("cat", path, remedy=f"install {PARAMETERS} as deploy/jetson/README.md says")
        try:
            nodes = {f"/{str(name).strip('/')}": section for name, section in yaml.safe_load(text).items()}
            own, every = (nodes.get(node, {}).get("ros__parameters", {}) for node in ("/policy", "/**"))
            return {str(name): str(value) for name, value in {**every, **own}.items() if value is not None}
        except (yaml.YAMLError, AttributeError, TypeError) as error:
            raise InputError(self.host, f"{path} is no parameters file of ROS 2", "correct that file") from error

    def switch(self, release: str) -> None:
        """Make `release` the current one; raises InputError unless it is afterwards."""
        script, remedy = f"cd {shlex.quote(self.root)} || exit\n{SWITCH}", f"look at {self.root} there"
        self.run("sh", "-c", script, "sh", release, remedy=remedy)
        if (current := self.link("current")) != release:
            raise InputError(self.host, f"current is {current or 'missing'} after the switch to {release}", remedy)

    def _local(self, command: list[str], remedy: str) -> str:
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError as error:
            raise InputError(command[0], "is not installed here", f"install {command[0]}") from error
        if done.returncode == NO_CONNECTION:
            raise InputError(self.host, " ".join(done.stderr.split()), "check the name, the key, and --ssh")
        if done.returncode:
            said = " ".join(done.stderr.split()) or f"{command[-1]} failed with {done.returncode}"
            raise InputError(self.host, said.rstrip("."), remedy)
        return done.stdout


def push(
    host: str,
    bundle: Path | None = None,
    /,
    robot: str | None = None,
    public_key: Path | None = None,
    provider: str | None = None,
    rollback: bool = False,
    root: str = "/opt/landbridge",
    ssh: str = "ssh",
) -> dict[str, Any]:
    """Copy a bundle to a robot's computer, verify it there, and make it the current one; or go back to the last.

    Example: landbridge deploy push landbridge@robot policy.bundle

    It is verified as the policy node there would load it, by ROOT/parameters.yaml: robot, provider, precision, and the
    key that must have signed it. A bundle for another robot is refused; so is any push while the robot moves or is
    armed, as far as its supervisor can be heard. If any check there fails, nothing is switched. A running policy keeps
    the bundle that it has read until it is restarted.

    Args:
        host: USER@HOST of the robot's computer, set up as deploy/jetson/README.md says.
        bundle: Folder or zip written by `landbridge export`.
        robot: Robot it is to run on, by name or by its folder there, in place of that of the parameters.
        public_key: Refuse the bundle unless the private half of this key has signed it; also when it is rolled back to.
        provider: What must reproduce the golden vectors there, in place of the parameters' provider and precision.
        rollback: Make the previous release the current one instead of sending a bundle.
        root: Folder of landbridge there.
        ssh: The ssh command with its options.
    """
    if (bundle is None) != rollback:
        problem = "is of no use to --rollback" if rollback else "is missing"
        raise InputError("BUNDLE", problem, "name a bundle to push, or ask for --rollback")
    there = Remote(host, root, ssh)
    if bundle is not None:
        read = read_bundle(bundle)
        if public_key is not None:
            require_signature(read, public_key)
        release = _release(read)
    else:
        release = there.link("previous")
        if not release:
            raise InputError(host, "has no previous release", "it has one after the second bundle that you push")
        if release == there.link("current"):
            problem = f"the previous release is the current one, {release}: a push was cut off"
            raise InputError(host, problem, "push the bundle that you want")
    state = _refuse_in_motion(there)
    loads = there.parameters()
    if provider is not None:
        loads |= {"provider": provider, "precision": "fp32", "strict": str(True)}
    if not (robot := robot or loads.get("robot")):
        raise InputError(host, f"{root}/{PARAMETERS} names no robot", "name --robot, or correct that file")
    if bundle is not None:
        _send(there, read, release)
    verified = _verify(there, release, loads | {"robot": robot}, public_key)
    checks = there.landbridge("doctor", remedy="install landbridge there")["checks"]
    there.switch(release)
    return {
        "host": host,
        "current": f"{root}/{release}",
        "previous": there.link("previous") or "none",
        "digest": verified["digest"],
        "provider": verified["provider"],
        "golden_error": verified["golden_error"],
        "inference_p99_us": verified["inference_p99_us"],
        "robot": f"{robot}, {state}",
        "next": "restart landbridge@policy and landbridge@recorder there, reset, arm",
        "missing there": [check for check in checks if check["remedy"]],
    }


def _refuse_in_motion(there: Remote) -> str:
    """The supervisor's state there, or why it is not known; raises InputError if the robot may move."""
    there.run("test", "-x", f"{there.root}/python", remedy=f"set up {there.root} as deploy/jetson/README.md says")
    try:
        state = str(there.landbridge("state", "--seconds", str(LISTEN_SECONDS), remedy="")["state"])
    except InputError as error:
        return f"state not known: {error.problem}"
    if state in MOVING:
        raise InputError(there.host, f"the robot is {state}", "disarm it (/monitor/disarm), then push again")
    return state


def _release(bundle: Bundle) -> str:
    """Named by all the bytes of a bundle: its digest says nothing of its signature."""
    signature = bundle.files.get(SIGNATURE)
    signed = "" if signature is None else f"-{hashlib.sha256(signature).hexdigest()[:12]}"
    return f"{_named(bundle.digest)}{signed}"


def _named(digest: str) -> str:
    return f"releases/{digest[:12]}"


def _send(there: Remote, bundle: Bundle, release: str) -> None:
    """The bytes that were verified here, and the units of this version."""
    with tempfile.TemporaryDirectory(prefix="landbridge-") as scratch:
        folder = Path(scratch)
        (folder / "bundle").mkdir()
        for name, content in bundle.files.items():
            (folder / "bundle" / name).write_bytes(content)
        shutil.copytree(UNITS, folder / "systemd")
        there.send(folder, release)


def _verify(there: Remote, release: str, loads: dict[str, str], key: Path | None) -> dict[str, Any]:
    """What `landbridge verify` says of a release there, by every key that it must be signed by.

    Args:
        loads: Parameters of the policy node.
        key: One that becomes the release's own if it proves right; else the release is checked by the one that it has.
    """
    path, robot = f"{there.root}/{release}", loads["robot"]
    sent = None if key is None else there.send_key(key, release)
    own = sent or (f"{path}/{KEY}" if there.has(f"{release}/{KEY}") else None)
    how = ["--provider", loads.get("provider", CPU), "--precision", loads.get("precision", "fp32")]
    how += ["--strict"] if loads.get("strict") == str(True) else []
    remedy = f"nothing was switched; mend that and push again, for {robot!r} or with another --robot"
    signers = [signer for signer in dict.fromkeys((loads.get("require_signature"), own)) if signer]
    for signed in [["--public-key", signer] for signer in signers] or [[]]:
        verified = there.landbridge("verify", f"{path}/bundle", "--robot", robot, *signed, *how, remedy=remedy)
    if _named(verified["digest"]) != release.partition("-")[0]:
        raise InputError(there.host, f"{path}/bundle is {verified['digest'][:12]}, not what was pushed there", remedy)
    if sent is not None:
        there.run("mv", sent, f"{path}/{KEY}", remedy=f"look at {path} there")
    return verified
