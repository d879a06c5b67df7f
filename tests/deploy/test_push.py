"""`landbridge deploy push` against a real sshd on this machine; `tests/ros/test_armed.py` has a robot that runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from landbridge.bundle import read_bundle
from landbridge.cli import main
from landbridge.deploy.push import PARAMETERS, SWITCH, Remote, push
from landbridge.errors import InputError
from landbridge.observation import Observer
from landbridge.robot import load_robot
from landbridge.signature import sign

FURUTA = load_robot("furuta")
WEIGHT = np.zeros((Observer(FURUTA.spec).size, 1), np.float32)


def test_a_bundle_is_switched_to_only_when_it_holds_there_and_back_again(
    target: Any, tmp_path: Path, linear_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("landbridge.deploy.push.LISTEN_SECONDS", 0.1)  # no monitor is there to be heard
    first, second = linear_bundle(tmp_path / "first", WEIGHT), linear_bundle(tmp_path / "second", WEIGHT - 0.1)
    broken = linear_bundle(tmp_path / "broken", WEIGHT, golden_shift=0.01)
    release = {path: f"releases/{read_bundle(path).digest[:12]}" for path in (first, second, broken)}
    with pytest.raises(InputError, match="has no previous release"):
        target.push(rollback=True)
    figures = target.push(first)
    assert (figures["digest"], figures["previous"]) == (read_bundle(first).digest, "none")
    assert figures["robot"] == "furuta, unknown"
    quick(target)
    assert target.link("current") == release[first]
    assert read_bundle(target.root / "current" / "bundle").files == read_bundle(first).files
    assert (target.root / "current" / "systemd" / "landbridge@.service").is_file()
    with pytest.raises(InputError, match=r"actions differ by 0\.01 .*nothing was switched"):
        target.push(broken)
    assert target.link("current") == release[first]
    target.push(second)
    assert (target.link("current"), target.link("previous")) == (release[second], release[first])
    target.push(rollback=True)
    assert (target.link("current"), target.link("previous")) == (release[first], release[second])
    (target.root / "previous").unlink()
    (target.root / "previous").symlink_to(release[first])  # as a push leaves it that was cut off in its switch
    with pytest.raises(InputError, match=f"the previous release is the current one, {release[first]}: a push was cut"):
        target.push(rollback=True)


def test_the_key_that_is_named_decides_also_of_a_rollback(
    target: Any, tmp_path: Path, linear_bundle: Callable[..., Path]
) -> None:
    quick(target)
    for name in ("ours", "theirs"):
        make_key(tmp_path, name)
    bundle = linear_bundle(tmp_path / "bundle", WEIGHT)
    with pytest.raises(InputError, match=r"bundle: model\.sig is missing: it is not signed"):
        target.push(bundle, public_key=tmp_path / "theirs.pub")
    assert not (target.root / "releases").exists()  # nothing was sent
    sign(bundle, tmp_path / "theirs.pem")
    target.push(bundle, public_key=tmp_path / "theirs.pub")
    theirs, before = target.link("current"), read_bundle(target.root / "current" / "bundle").files
    sign(bundle, tmp_path / "ours.pem")
    target.push(bundle, public_key=tmp_path / "ours.pub")  # the same digest
    assert (target.link("previous"), target.link("current") == theirs) == (theirs, False)
    assert read_bundle(target.root / "previous" / "bundle").files == before  # what ran was not written to
    with pytest.raises(InputError, match=r"is no signature of this bundle by .*nothing was switched"):
        target.push(rollback=True, public_key=tmp_path / "ours.pub")
    assert target.link("previous") == theirs
    assert (target.root / theirs / "key.pub").read_bytes() == (tmp_path / "theirs.pub").read_bytes()


def test_what_a_push_that_was_cut_off_has_left_is_made_whole(
    target: Any, tmp_path: Path, linear_bundle: Callable[..., Path]
) -> None:
    """A file more, a file of other bytes; the key that has proved right is not the bundle's, and stays."""
    quick(target)
    make_key(tmp_path, "ours")
    bundle = linear_bundle(tmp_path / "bundle", WEIGHT)
    sign(bundle, tmp_path / "ours.pem")
    target.push(bundle, public_key=tmp_path / "ours.pub")
    release = target.root / target.link("current")
    left = release / "bundle" / "policy.onnx"
    whole = left.read_bytes()
    left.write_bytes(bytes(len(whole)))
    (release / "bundle" / "extra").touch()
    target.push(bundle)
    assert left.read_bytes() == whole
    assert not (release / "bundle" / "extra").exists()
    assert (release / "key.pub").read_bytes() == (tmp_path / "ours.pub").read_bytes()


def test_a_release_that_was_signed_is_not_gone_back_to_when_it_is_no_more(
    target: Any, tmp_path: Path, linear_bundle: Callable[..., Path]
) -> None:
    """Its weights changed there, and sums and golden vectors with them: it is checked by the key that it came with."""
    quick(target)
    make_key(tmp_path, "ours")
    bundle, forged = linear_bundle(tmp_path / "bundle", WEIGHT), linear_bundle(tmp_path / "forged", WEIGHT - 0.1)
    sign(bundle, tmp_path / "ours.pem")
    target.push(bundle, public_key=tmp_path / "ours.pub")
    signed = target.root / target.link("current")
    target.push(forged)
    for name, content in read_bundle(forged).files.items():
        (signed / "bundle" / name).write_bytes(content)
    with pytest.raises(InputError, match=r"is no signature of this bundle by .*key\.pub.*nothing was switched"):
        target.push(rollback=True)
    (signed / "key.pub").unlink()
    with pytest.raises(InputError, match=rf"is {read_bundle(forged).digest[:12]}, not what was pushed there"):
        target.push(rollback=True)
    assert target.link("current") == f"releases/{read_bundle(forged).digest[:12]}"


def test_a_bundle_is_verified_as_the_policy_node_there_will_load_it(
    target: Any, tmp_path: Path, linear_bundle: Callable[..., Path]
) -> None:
    quick(target)
    make_key(tmp_path, "ours")
    bundle, path = linear_bundle(tmp_path / "bundle", WEIGHT), target.root / PARAMETERS
    wanted = f"require_signature: {tmp_path / 'ours.pub'}"
    path.write_text(f"/**: {{ros__parameters: {{robot: furuta}}}}\n/policy: {{ros__parameters: {{{wanted}}}}}")
    with pytest.raises(InputError, match=r"it is not signed.*nothing was switched"):
        target.push(bundle)
    sign(bundle, tmp_path / "ours.pem")
    target.push(bundle)
    path.write_text("/policy: {ros__parameters: {robot: furuta, provider: tensorrt, precision: int8}}")
    with pytest.raises(InputError, match=r"(is not installed|no accepted engine).*nothing was switched"):
        target.push(bundle)
    target.push(bundle, provider="CPUExecutionProvider")


def test_the_bundle_of_another_robot_never_becomes_the_current_one(
    target: Any, tmp_path: Path, linear_bundle: Callable[..., Path]
) -> None:
    """Which robot it is, is for that computer to say, or for who pushes, and not for the bundle."""
    quick(target)
    arm = load_robot("arm").spec
    weight = np.zeros((Observer(arm).size, len(arm.actuated)), np.float32)
    theirs = linear_bundle(tmp_path / "theirs", weight, robot="arm")
    release = f"releases/{read_bundle(theirs).digest[:12]}"
    refused = r"is for robot 'arm', this is 'furuta'.*nothing was switched.*for 'furuta' or with another --robot"
    with pytest.raises(InputError, match=refused):
        target.push(theirs)
    assert not (target.root / "current").is_symlink()
    named = ("state", "digest", "provider", "golden_error", "inference_p99_us", "checks")
    answer = json.dumps(dict.fromkeys(named, ()) | {"digest": read_bundle(theirs).digest})
    (target.root / "python").write_text(f"#!/bin/sh\necho \"$*\" >> '{tmp_path}/asked'\necho '{answer}'\n")
    target.push(theirs, robot="arm")  # told so
    assert target.link("current") == release
    (target.root / "previous").symlink_to(f"{release}-signed")
    node = "policy: {ros__parameters: {robot: quadruped, require_signature: }}"
    (target.root / PARAMETERS).write_text(f"/**: {{ros__parameters: {{robot: furuta}}}}\n{node}")
    target.push(rollback=True)
    checked = [line for line in (tmp_path / "asked").read_text().splitlines() if " verify " in line]
    assert [" --strict " in line for line in checked] == [True, False]  # as the node may fall back
    assert [line.partition("--robot ")[2].split()[0] for line in checked] == ["arm", "quadruped"]


def test_a_computer_that_does_not_say_which_robot_it_is(
    target: Any, tmp_path: Path, linear_bundle: Callable[..., Path]
) -> None:
    quick(target)
    bundle = linear_bundle(tmp_path / "bundle", WEIGHT)
    there = Remote(target.host, str(target.root), target.ssh)
    assert there.parameters()["robot"] == "furuta"
    (target.root / PARAMETERS).write_text("/**: {ros__parameters: {port: x}}")
    with pytest.raises(InputError, match=rf"{PARAMETERS} names no robot\. name --robot"):
        target.push(bundle)
    for content in ("- [", "text"):
        (target.root / PARAMETERS).write_text(content)
        with pytest.raises(InputError, match=rf"{PARAMETERS} is no parameters file of ROS 2"):
            there.parameters()
    (target.root / PARAMETERS).unlink()
    with pytest.raises(InputError, match=r"No such file or directory\. install"):
        there.parameters()
    assert not (target.root / "releases").exists()


def make_key(folder: Path, name: str) -> None:
    """NAME.pem and NAME.pub."""
    make = f"openssl ecparam -name prime256v1 -genkey -noout -out {name}.pem && openssl ec -in {name}.pem -pubout"
    subprocess.run(f"{make} -out {name}.pub", shell=True, check=True, capture_output=True, cwd=folder)


def quick(target: Any) -> None:
    """Have `python` there answer nothing but `verify`: the rest takes seconds each time."""
    python = (target.root / "python").read_text()
    rest = 'case "$*" in *verify*) ;; *doctor*) echo \'{"checks": []}\'; exit ;; *) exit 1 ;; esac\n'
    (target.root / "python").write_text(python.replace("#!/bin/sh\n", f"#!/bin/sh\n{rest}"))


def test_a_robot_that_falls_silent_ends_the_push(
    target: Any, tmp_path: Path, linear_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("landbridge.deploy.push.SILENCE_SECONDS", 3)
    stop = f"""#!/bin/sh
case "$*" in *verify*) ;; *) exit 1 ;; esac
process=$$
until case $(cat /proc/$process/comm) in sshd*) true ;; *) false ;; esac; do
    process=$(sed 's/.*) . //; s/ .*//' /proc/$process/stat)
done
echo $process > {tmp_path}/stopped
kill -STOP $process"""
    (target.root / "python").write_text(stop)
    limit = threading.Timer(60, lambda: os.kill(int((tmp_path / "stopped").read_text()), signal.SIGKILL))
    limit.start()
    try:
        with pytest.raises(InputError, match=r"Timeout, server .* not responding"):
            target._replace(ssh=target.plain).push(linear_bundle(tmp_path / "bundle", WEIGHT))
    finally:
        limit.cancel()
        os.kill(int((tmp_path / "stopped").read_text()), signal.SIGKILL)
    assert not (target.root / "current").is_symlink()


def test_a_switch_that_fails_is_not_reported_as_done(
    target: Any, tmp_path: Path, linear_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    full = tmp_path / "full disk"
    full.mkdir()
    (full / "sync").write_text("#!/bin/sh\ntouch synced\n")
    (full / "sync").chmod(0o755)
    (full / "ln").write_text("#!/bin/sh\necho 'No space left on device' >&2\nexit 1\n")
    (full / "ln").chmod(0o755)
    environment = {"PATH": f"{full}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-c", SWITCH, "sh", "releases/a"], cwd=full, env=environment, capture_output=True)
    assert (done.returncode, done.stderr) == (1, b"No space left on device\n")
    assert (full / "synced").is_file()  # before anything leads to it
    monkeypatch.setattr("landbridge.deploy.push.LISTEN_SECONDS", 0.1)
    (target.root / "current.new").mkdir()  # takes the link into it, and becomes `current` itself
    with pytest.raises(InputError, match=r"current is missing after the switch to releases/\w+\. look at"):
        target.push(linear_bundle(tmp_path / "bundle", WEIGHT))


def test_what_is_wrong_is_said_before_anything_is_sent(
    target: Any, tmp_path: Path, linear_bundle: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = linear_bundle(tmp_path / "bundle", WEIGHT)
    with pytest.raises(InputError, match="BUNDLE: is missing"):
        push(target.host)
    with pytest.raises(InputError, match="of no use to --rollback"):
        target.push(bundle, rollback=True)
    with pytest.raises(InputError, match=r"Permission denied .*check the name, the key"):
        push(target.host, bundle, ssh=target.plain.replace(f"-i {tmp_path}/user", "-i /nowhere"))
    with pytest.raises(InputError, match=r"--ssh: \"ssh '\": No closing quotation"):
        push(target.host, bundle, ssh="ssh '")
    with pytest.raises(InputError, match="set up /nowhere as"):
        push(target.host, bundle, root="/nowhere", ssh=target.ssh)
    (bundle / "policy.onnx").write_bytes(b"x")
    assert main(["deploy", "push", target.host, str(bundle), "--root", str(target.root), "--ssh", target.ssh]) == 2
    assert "does not match SHA256SUMS" in capsys.readouterr().err
    assert sorted(os.listdir(target.root)) == [PARAMETERS, "python"]
